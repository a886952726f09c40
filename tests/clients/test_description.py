"""The description's own client code, verbatim but for the port, and its neighbours."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl
import pytest


def read(client, sql):
    return client.do_get(fl.Ticket(sql)).read_all()


def test_query_to_pandas(client):
    reader = client.do_get(fl.Ticket("SELECT * FROM trades LIMIT 10"))
    df = reader.read_all().to_pandas()
    assert list(df.columns) == ["symbol", "price", "volume", "timestamp"]
    assert len(df) == 10
    assert df["timestamp"].iloc[0] == pd.Timestamp("2024-03-23T22:56:07")
    assert df["symbol"].tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]


def test_query_to_polars(client):
    table = read(client, "SELECT symbol, sum(price * volume) / sum(volume) AS vwap FROM trades GROUP BY symbol")
    frame = pl.from_arrow(table).sort("symbol")
    assert frame["symbol"].to_list() == [1, 2, 3]
    assert frame["vwap"].dtype == pl.Float64


def test_query_to_duckdb(client):
    trades = client.do_get(fl.Ticket("SELECT * FROM trades")).to_reader()
    (total,) = duckdb.sql("SELECT count(*), max(price) FROM trades").fetchall()
    assert total == (1000, 151.99)
    del trades


def test_put_a_dataframe(client):
    before = read(client, "SELECT count(*) AS n FROM trades")["n"][0].as_py()
    df = pd.DataFrame({"symbol": [1, 2], "price": [150.25, 151.5], "volume": [100.0, 200.0]})
    table = pa.Table.from_pandas(df)
    writer, reader = client.do_put(fl.FlightDescriptor.for_path("trades"), table.schema)
    writer.write_table(table)
    writer.close()
    after = read(client, "SELECT count(*) AS n, max(timestamp) > now() - INTERVAL '1 hour' AS recent FROM trades")
    assert after["n"][0].as_py() == before + 2
    assert after["recent"][0].as_py()
    read(client, "SELECT 1")


def test_ping_and_healthcheck(client):
    assert [result.body.to_pybytes() for result in client.do_action(fl.Action("ping", b""))] == [b"pong"]
    (health,) = client.do_action(fl.Action("healthcheck", b""))
    assert b'"status":"healthy"' in health.body.to_pybytes()
    assert {action.type for action in client.list_actions()} >= {"ping", "healthcheck"}


def test_list_flights(client):
    (trades,) = [info for info in client.list_flights() if info.descriptor.path == [b"trades"]]
    assert trades.total_records >= 1000
    assert trades.schema.field("timestamp").type == pa.timestamp("ns")
    assert client.do_get(trades.endpoints[0].ticket).read_all().num_rows >= 1000


@pytest.mark.parametrize(
    "descriptor",
    [
        fl.FlightDescriptor.for_command("SELECT * FROM trades WHERE price > 151"),
        fl.FlightDescriptor.for_command("SELECT symbol, count(*) FROM trades GROUP BY symbol"),
        fl.FlightDescriptor.for_path("trades"),
    ],
)
def test_flight_info(client, descriptor):
    info = client.get_flight_info(descriptor)
    (endpoint,) = info.endpoints
    assert endpoint.locations == []
    for _ in range(2):
        table = client.do_get(endpoint.ticket).read_all()
        assert table.num_rows == info.total_records
        assert table.schema == info.schema == client.get_schema(descriptor).schema


def test_no_precision_is_lost_and_no_timestamp_cut(client):
    table = pa.table(
        {
            "i64": pa.array([2**63 - 1, -(2**63), None], pa.int64()),
            "f32": pa.array([1.1, float("nan"), None], pa.float32()),
            "f64": pa.array([1e-300, -0.0, None], pa.float64()),
            "text": pa.array(["ü", "", None], pa.utf8()),
            "ns": pa.array([1, 2**62 + 1, None], pa.timestamp("ns")),
            "zoned": pa.array([1, -1, None], pa.timestamp("us", "America/New_York")),
            "symbol": pa.array(["a", "b", None]).dictionary_encode(),
            "decimal": pa.array(["1.10", "-0.01", None]).cast(pa.decimal128(10, 2)),
            "list": pa.array([[1, None], [], None], pa.list_(pa.int32())),
            "struct": pa.array([{"a": 1}, {"a": None}, None], pa.struct([("a", pa.int8())])),
            "view": pa.array(["a view that is long enough", "x", None], pa.string_view()),
        }
    )
    writer, _ = client.do_put(fl.FlightDescriptor.for_path("exact"), table.schema)
    writer.write_table(table)
    writer.close()
    back = read(client, "SELECT * FROM exact")
    assert back.schema == table.schema
    assert back.drop_columns(["f32"]).equals(table.drop_columns(["f32"]))
    assert str(back["f32"]) == str(table["f32"])


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_put_compressed(client, codec):
    table = pa.table({"n": range(10_000)})
    options = fl.FlightCallOptions(write_options=pa.ipc.IpcWriteOptions(compression=codec))
    writer, _ = client.do_put(fl.FlightDescriptor.for_path(f"compressed_{codec}"), table.schema, options)
    writer.write_table(table)
    writer.close()
    assert read(client, f"SELECT * FROM compressed_{codec}").equals(table)


def test_errors_are_the_classes_that_a_cpp_server_raises(client):
    with pytest.raises(pa.lib.ArrowKeyError, match='table "nope" not found'):
        read(client, "SELECT * FROM nope")
    with pytest.raises(pa.lib.ArrowInvalid, match="does not parse"):
        read(client, "SELEC 1")
    with pytest.raises(pa.lib.ArrowNotImplementedError, match="unknown action"):
        list(client.do_action(fl.Action("reboot", b"")))
    with pytest.raises(pa.lib.ArrowInvalid, match="only reads"):
        read(client, "DROP TABLE trades")


def test_a_refused_put_says_why_and_leaves_nothing(client):
    before = read(client, "SELECT count(*) AS n FROM trades")["n"][0].as_py()
    table = pa.table({"symbol": pa.array(["x"] * 100_000), "price": pa.array([1.0] * 100_000)})
    with pytest.raises(pa.lib.ArrowTypeError, match='"symbol" is Utf8'):
        writer, _ = client.do_put(fl.FlightDescriptor.for_path("trades"), table.schema)
        for _ in range(20):
            writer.write_table(table, 1000)
        writer.close()
    assert read(client, "SELECT count(*) AS n FROM trades")["n"][0].as_py() == before


def test_an_error_in_mid_stream_is_raised(client):
    sql = "SELECT 1 / (500000 - value) AS boom, value FROM generate_series(1, 1000000)"
    with pytest.raises(pa.lib.ArrowException, match="(?i)divide by zero"):
        read(client, sql)


def test_empty_results_have_their_schema(client):
    table = read(client, "SELECT * FROM trades WHERE false")
    assert table.num_rows == 0
    assert table.schema.names == ["symbol", "price", "volume", "timestamp"]


def test_pandas_metadata_of_the_index_is_not_carried(client):
    df = pd.DataFrame({"n": [1, 2]}, index=pd.Index([10, 20], name="key"))
    table = pa.Table.from_pandas(df)
    writer, _ = client.do_put(fl.FlightDescriptor.for_path("indexed"), table.schema)
    writer.write_table(table)
    writer.close()
    back = read(client, "SELECT * FROM indexed")
    assert back.schema.metadata is None
    assert back.to_pandas()["key"].tolist() == [10, 20]
