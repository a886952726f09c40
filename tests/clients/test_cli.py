"""`zepto`, the command-line client, as a shell script and as a person at a terminal use it."""

import json
import os
import pathlib
import pty
import select
import subprocess
import time

import pyarrow as pa
import pyarrow.flight as fl
import pyarrow.parquet
import pytest

ZEPTO = pathlib.Path(os.environ["ZEPTO_TEST_SERVER"]).with_name("zepto")


@pytest.fixture(params=["flight", "http"])
def zepto(server, request):
    url = getattr(server, request.param)

    def run(*arguments, stdin=None, code=0):
        done = subprocess.run([ZEPTO, "--url", url, *arguments], input=stdin, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout if code == 0 else done.stderr.decode()

    return run


def test_a_pipe_gets_csv_and_any_other_format_by_name(zepto):
    sql = "SELECT symbol, max(price) AS top, NULL AS nothing FROM trades GROUP BY symbol ORDER BY symbol LIMIT 2"
    assert zepto("sql", sql) == b"symbol,top,nothing\n1,151.99,\n2,151.99,\n"
    assert json.loads(zepto("sql", sql, "--format", "json"))["data"] == [[1, 151.99, None], [2, 151.99, None]]
    lines = zepto("sql", sql, "-f", "ndjson").splitlines()
    assert json.loads(lines[1]) == {"symbol": 2, "top": 151.99, "nothing": None}
    assert pa.ipc.open_stream(zepto("sql", sql, "-f", "arrow")).read_all()["top"].to_pylist() == [151.99, 151.99]
    assert pa.parquet.read_table(pa.BufferReader(zepto("sql", sql, "-f", "parquet"))).num_rows == 2
    assert zepto("sql", sql, "-f", "markdown").decode().splitlines()[2] == "|      1 | 151.99 | NULL    |"
    table = zepto("sql", sql, "-f", "table").decode()
    assert "│      2 ┆ 151.99 ┆ NULL    │" in table


def test_statements_are_read_from_a_pipe(zepto):
    answer = zepto("sql", stdin=b"SELECT 1 AS a; -- and\nSELECT ';' AS b;")
    assert answer == b"a\n1\nb\n;\n"


def test_changes_and_definitions(zepto):
    zepto("sql", "CREATE OR REPLACE TABLE from_cli (n INT64)")
    assert zepto("sql", "INSERT INTO from_cli VALUES (1), (2)") == b"inserted\n2\n"
    assert b"from_cli,2" in zepto("tables")
    assert zepto("describe", "from_cli") == b"column,type\nn,INT64\n"


def test_files_go_in_and_come_out_equal(zepto, client, tmp_path):
    sql = "SELECT symbol, price, volume, timestamp FROM trades ORDER BY timestamp, symbol LIMIT 500"
    expected = client.do_get(fl.Ticket(sql)).read_all()
    for ending in ("parquet", "csv", "ndjson", "arrow"):
        path = tmp_path / f"trades.{ending}"
        zepto("export", sql, "--to", str(path))
        zepto("import", str(path), "--table", f"cli_{ending}", "--if-exists", "replace")
        back = client.do_get(fl.Ticket(f"SELECT * FROM cli_{ending}")).read_all()
        assert back["price"].to_pylist() == expected["price"].to_pylist(), ending
        # NDJSON has no type for times, and nothing says that this text is one.
        times = back["timestamp"].cast(pa.timestamp("ns"))
        assert times.to_pylist() == expected["timestamp"].to_pylist(), ending
    assert not list(tmp_path.glob("*.partial"))
    one, two = tmp_path / "part1.parquet", tmp_path / "part2.parquet"
    pa.parquet.write_table(expected.slice(0, 100), one)
    pa.parquet.write_table(expected.slice(100, 150), two)
    dry = zepto("import", str(tmp_path / "part*.parquet"), "--table", "cli_dry", "--dry-run").decode()
    assert "250 rows" in dry and "price Float64" in dry
    assert b"cli_dry" not in zepto("tables")
    zepto("import", str(tmp_path / "part*.parquet"), "--table", "cli_parts", "--if-exists", "replace")
    assert client.do_get(fl.Ticket("SELECT * FROM cli_parts")).read_all().equals(expected.slice(0, 250))
    zepto("import", "-", "--format", "csv", "--table", "cli_stdin", "--if-exists", "replace", stdin=b"a,b\n1,x\n2,y\n")
    assert zepto("sql", "SELECT sum(a) AS s FROM cli_stdin") == b"s\n3\n"


def test_half_an_import_is_none(zepto, tmp_path):
    good, bad = tmp_path / "1.csv", tmp_path / "2.csv"
    good.write_text("n\n1\n2\n")
    bad.write_text("other\n3\n")
    error = zepto("import", str(good), str(bad), "--table", "cli_half", code=1)
    assert "same columns" in error
    assert b"cli_half" not in zepto("tables")


def test_small_questions(zepto):
    assert zepto("ping").startswith(b"pong from ")
    assert json.loads(zepto("health"))["status"] == "healthy"


def test_exit_codes_tell_whose_mistake_it_was(zepto):
    assert 'table "nope" not found' in zepto("sql", "SELECT * FROM nope", code=1)
    assert "Usage" in zepto("frobnicate", code=2)
    assert "no file" in zepto("import", "/no/such/file.csv", "--table", "t", code=1)


def test_nobody_there_is_an_error():
    done = subprocess.run([ZEPTO, "--url", "grpc://127.0.0.1:1", "ping"], capture_output=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(b"error: ")


def test_the_shell_at_a_terminal(server, tmp_path):
    leader, follower = pty.openpty()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
    shell = subprocess.Popen(
        [ZEPTO, "--url", server.flight, "sql"], stdin=follower, stdout=follower, stderr=follower, env=environment
    )
    seen = b""

    def read(patience):
        """Whether anything came."""
        nonlocal seen
        if not select.select([leader], [], [], patience)[0]:
            return False
        piece = os.read(leader, 65536)
        seen += piece
        # The editor asks where the cursor is, and waits for the answer.
        for _ in range(piece.count(b"\x1b[6n")):
            os.write(leader, b"\x1b[1;1R")
        return True

    def until(text, patience=20):
        end = time.monotonic() + patience
        while text not in seen:
            assert time.monotonic() < end, seen.decode(errors="replace")
            read(0.1)

    def enter(line):
        nonlocal seen
        while read(0.5):
            pass
        seen = b""
        os.write(leader, line + b"\r")

    try:
        until(b"for help")
        enter(b"SELECT symbol,")
        until(b"...")
        enter(b"count(*) AS n FROM trades GROUP BY symbol ORDER BY symbol;")
        until("┆ 334 │".encode())
        until(b"3 rows in")
        enter(b"\\d trades")
        until(b"TIMESTAMP_NS")
        enter(b"SELECT nope FROM trades;")
        until(b"not found")
        enter(b"\\format csv")
        enter(b"SELECT 1 AS one;")
        until(b"one\r\n1")
        enter(b"\\q")
        assert shell.wait(20) == 0
        assert b"SELECT 1 AS one;" in (tmp_path / "zepto" / "history").read_bytes()
    finally:
        shell.kill()
        os.close(leader)
        os.close(follower)
