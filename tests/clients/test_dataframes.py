"""pandas, Polars and DuckDB, each by its own ways in and out."""

import adbc_driver_flightsql.dbapi as dbapi
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pytest


@pytest.fixture
def connection(server):
    with dbapi.connect(server.flight, autocommit=True) as connection:
        yield connection


@pytest.fixture
def frame():
    days = pd.to_datetime(["2024-01-01 00:00:00.123456789", "2024-01-02", None], format="ISO8601").astype("datetime64[ns]")
    return pd.DataFrame(
        {
            "i": np.array([1, -2, 2**62], "int64"),
            "f": [1.5, np.nan, -0.0],
            "s": ["a", "ü", None],
            "t": days,
            "z": days.tz_localize("Europe/Berlin"),
            "b": [True, False, True],
        }
    )


def test_pandas_writes_and_reads_back(connection, frame):
    assert frame.to_sql("from_pandas", connection, if_exists="fail", index=False) == 3
    with pytest.raises(ValueError, match="exists"):
        frame.to_sql("from_pandas", connection, if_exists="fail", index=False)
    frame.to_sql("from_pandas", connection, if_exists="append", index=False)
    assert len(pd.read_sql("SELECT * FROM from_pandas", connection)) == 6
    frame.to_sql("from_pandas", connection, if_exists="replace", index=False)
    back = pd.read_sql("SELECT * FROM from_pandas", connection, dtype_backend="pyarrow")
    assert back["t"].dtype == pd.ArrowDtype(pa.timestamp("ns"))
    assert back["z"].dtype == pd.ArrowDtype(pa.timestamp("ns", "Europe/Berlin"))
    plain = pd.read_sql("SELECT * FROM from_pandas", connection)
    plain["z"] = plain["z"].dt.tz_convert("Europe/Berlin")
    pd.testing.assert_frame_equal(plain, frame)
    assert pd.read_sql_table("from_pandas", connection).shape == (3, 6)


def test_polars_reads_in_every_way(server, connection):
    sql = "SELECT symbol, price, timestamp FROM trades WHERE symbol = 2"
    frame = pl.read_database(sql, connection)
    assert frame.schema == {"symbol": pl.Int64, "price": pl.Float64, "timestamp": pl.Datetime("ns")}
    uri = server.flight.replace("grpc://", "flightsql://") + "?transport=tcp"
    assert pl.read_database_uri(sql, uri=uri, engine="adbc").equals(frame)
    batches = list(pl.read_database(sql, connection, iter_batches=True))
    assert pl.concat(batches).equals(frame)
    with fl.connect(server.flight) as client:
        assert pl.from_arrow(client.do_get(fl.Ticket(sql)).read_all()).equals(frame)


def test_polars_writes_and_reads_back(connection):
    frame = pl.DataFrame(
        {"a": [1, None], "text": ["x", "y"], "list": [[1], [2, 3]], "cat": pl.Series(["u", "v"], dtype=pl.Categorical)}
    )
    assert frame.write_database("from_polars", connection, engine="adbc", if_table_exists="fail") == 2
    with pytest.raises(Exception, match="exists"):
        frame.write_database("from_polars", connection, engine="adbc", if_table_exists="fail")
    frame.write_database("from_polars", connection, engine="adbc", if_table_exists="append")
    frame.write_database("from_polars", connection, engine="adbc", if_table_exists="replace")
    back = pl.read_database("SELECT * FROM from_polars", connection)
    assert back.equals(frame.with_columns(pl.col("cat").cast(pl.String)))


def test_duckdb_queries_our_stream_beside_its_own_tables(client):
    with duckdb.connect() as local:
        local.execute("CREATE TABLE names AS SELECT * FROM (VALUES (1, 'one'), (2, 'two')) t(symbol, name)")
        trades = client.do_get(fl.Ticket("SELECT * FROM trades")).to_reader()
        joined = local.sql("SELECT name, count(*) FROM trades JOIN names USING (symbol) GROUP BY name ORDER BY name")
        assert joined.fetchall() == [("one", 334), ("two", 333)]
        local.register("registered", client.do_get(fl.Ticket("SELECT max(price) AS top FROM trades")).read_all())
        assert local.sql("SELECT top FROM registered").fetchall() == [(151.99,)]
        # And the other way round: what DuckDB made becomes a table here.
        made = local.sql("SELECT * FROM range(5) t(n)").to_arrow_table()
    writer, _ = client.do_put(fl.FlightDescriptor.for_path("from_duckdb"), made.schema)
    writer.write_table(made)
    writer.close()
    assert client.do_get(fl.Ticket("SELECT sum(n) AS s FROM from_duckdb")).read_all()["s"][0].as_py() == 10


def test_a_notebooks_own_rows_are_joined_without_a_table(client):
    sql = "SELECT i.note, avg(t.price) AS price FROM input i JOIN trades t ON i.symbol = t.symbol GROUP BY i.note ORDER BY 1"
    mine = pa.table({"symbol": [1, 3], "note": ["first", "third"]})
    writer, reader = client.do_exchange(fl.FlightDescriptor.for_command(sql))
    with writer:
        writer.begin(mine.schema)
        writer.write_table(mine)
        writer.done_writing()
        answer = reader.read_all()
    assert answer["note"].to_pylist() == ["first", "third"]
    assert b"input" not in [info.descriptor.path[0] for info in client.list_flights()]


def test_basic_credentials_give_a_bearer(client):
    name, value = client.authenticate_basic_token("user", "password")
    assert name == b"authorization" and value.startswith(b"Bearer ")
    options = fl.FlightCallOptions(headers=[(name, value)])
    assert client.do_get(fl.Ticket("SELECT 1 AS one"), options).read_all()["one"][0].as_py() == 1
