"""HTTP beside Flight: the same tables, from clients of the standard library and pyarrow's IPC."""

import json
import shutil
import subprocess
import urllib.request

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from conftest import without


def post(server, path, body, **headers):
    request = urllib.request.Request(server.http + path, data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request) as response:
        return response.headers, response.read()


def test_json_and_arrow_agree(server, client):
    sql = b"SELECT * FROM trades ORDER BY timestamp LIMIT 5"
    _, body = post(server, "/", sql)
    answer = json.loads(body)
    assert answer["columns"] == ["symbol", "price", "volume", "timestamp"]
    assert answer["rows"] == 5
    _, stream = post(server, "/", sql, Accept="application/vnd.apache.arrow.stream")
    table = pa.ipc.open_stream(stream).read_all()
    assert table.equals(client.do_get(fl.Ticket(sql)).read_all())
    assert [row[1] for row in answer["data"]] == table["price"].to_pylist()


def test_insert_arrow(server, client):
    table = pa.table({"n": pa.array(range(100_000)), "s": pa.array([f"row {n}" for n in range(100_000)])})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10_000)
    headers, body = post(server, "/insert/arrow?table=over_http", sink.getvalue().to_pybytes())
    assert json.loads(body) == {"inserted": 100_000, "failed": 0}
    assert headers["X-Zepto-Batches"] == "10"
    assert client.do_get(fl.Ticket("SELECT * FROM over_http")).read_all().equals(table)


def test_describe_is_readable_with_pyarrow(server):
    import base64

    _, body = post(server, "/describe", b"SELECT * FROM trades")
    described = json.loads(body)
    schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(described["schema"])))
    assert described["kind"] == "read"
    assert schema.field("timestamp").type == pa.timestamp("ns")


def test_curl_posts_sql_as_it_does_by_default(server):
    if not shutil.which("curl"):
        without("curl")
    command = ["curl", "-s", "-d", "SELECT 1 AS one", server.http]
    assert json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["data"] == [[1]]


def test_errors_are_json_with_their_status(server):
    with pytest.raises(urllib.error.HTTPError) as error:
        post(server, "/", b"SELECT * FROM nope")
    assert error.value.code == 404
    assert json.loads(error.value.read())["error"]["kind"] == "NotFound"
