"""HTTP's formats as other tools read and write them: requests, pandas, Polars, DuckDB, pyarrow."""

import io
import urllib.parse
import urllib.request

import duckdb
import msgpack
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet
import pytest
import requests

SQL = "SELECT symbol, price, volume, timestamp FROM trades LIMIT 300"


@pytest.fixture
def expected(client):
    return client.do_get(fl.Ticket(SQL)).read_all()


@pytest.fixture
def address(server):
    def address(**query):
        return f"{server.http}/?{urllib.parse.urlencode({'query': SQL, **query})}"

    return address


def test_pandas_reads_csv_and_parquet_from_an_address(address, expected):
    frame = pd.read_csv(address(format="csv"), parse_dates=["timestamp"])
    assert frame["price"].tolist() == expected["price"].to_pylist()
    assert frame["timestamp"].iloc[1] == expected["timestamp"][1].as_py()
    parquet = pd.read_parquet(io.BytesIO(urllib.request.urlopen(address(format="parquet")).read()))
    pd.testing.assert_frame_equal(parquet, expected.to_pandas())


def test_polars_reads_csv_ndjson_and_parquet(address, expected):
    csv = pl.read_csv(urllib.request.urlopen(address(format="csv")).read(), try_parse_dates=True)
    assert csv["volume"].to_list() == expected["volume"].to_pylist()
    lines = pl.read_ndjson(urllib.request.urlopen(address(format="ndjson")).read())
    assert lines["symbol"].to_list() == expected["symbol"].to_pylist()
    parquet = pl.read_parquet(urllib.request.urlopen(address(format="parquet")).read())
    assert parquet.equals(pl.from_arrow(expected))


def test_duckdb_reads_csv_json_and_parquet(address, expected, tmp_path):
    for format, read in (("csv", "read_csv"), ("ndjson", "read_json"), ("parquet", "read_parquet")):
        path = tmp_path / f"trades.{format}"
        path.write_bytes(urllib.request.urlopen(address(format=format)).read())
        (total,) = duckdb.sql(f"SELECT count(*), sum(volume) FROM {read}('{path}')").fetchall()
        assert total == (300, sum(expected["volume"].to_pylist())), format


def test_pyarrow_streams_arrow_over_http(address, expected):
    with urllib.request.urlopen(address(format="arrow")) as reply:
        assert pa.ipc.open_stream(reply).read_all().equals(expected)


def test_requests_with_parameters(server, client, expected):
    answer = requests.post(
        server.http, params={"param_symbol": "2", "param_from": "150.5"},
        data="SELECT count(*) AS n FROM trades WHERE symbol = $symbol AND price >= $from", timeout=20,
    )
    told = client.do_get(fl.Ticket("SELECT count(*) AS n FROM trades WHERE symbol = 2 AND price >= 150.5")).read_all()
    assert answer.json()["data"] == [told["n"].to_pylist()]
    shape = requests.post(server.http, params={"default_format": "JSON"}, data=SQL, timeout=20).json()
    assert set(shape) == {"meta", "data", "rows", "statistics"} and shape["rows"] == 300
    assert shape["data"][0]["price"] == expected["price"][0].as_py()


def test_every_format_goes_back_in(server, client, expected):
    bodies = {
        "csv": expected.to_pandas().to_csv(index=False).encode(),
        "ndjson": pl.from_arrow(expected).write_ndjson().encode(),
        "msgpack": msgpack.packb(expected.drop_columns(["timestamp"]).to_pydict()),
    }
    sink = pa.BufferOutputStream()
    pa.parquet.write_table(expected, sink)
    bodies["parquet"] = sink.getvalue().to_pybytes()
    client_sql = "CREATE OR REPLACE TABLE {} (symbol INT64, price FLOAT64, volume FLOAT64, timestamp TIMESTAMP_NS)"
    for format, body in bodies.items():
        name = f"http_{format}"
        requests.post(server.http, data=client_sql.format(name), timeout=20).raise_for_status()
        answer = requests.post(f"{server.http}/insert/{format}", params={"table": name}, data=body, timeout=20)
        assert answer.json() == {"inserted": 300, "failed": 0}, answer.text
        back = client.do_get(fl.Ticket(f"SELECT * FROM {name}")).read_all()
        columns = ["symbol", "price", "volume"] + ([] if format == "msgpack" else ["timestamp"])
        assert back.select(columns).equals(expected.select(columns)), format
