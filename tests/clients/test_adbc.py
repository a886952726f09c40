"""ADBC's Flight SQL driver, which is Go's: DBAPI and what lies below it. What it does here, every tool on top of it can do."""

import datetime
import threading
import time

import adbc_driver_flightsql.dbapi as dbapi
import adbc_driver_manager
import pyarrow as pa
import pytest

HEADER = "adbc.flight.sql.rpc.call_header."


@pytest.fixture
def connect(server):
    opened = []

    def connect(**options):
        connection = dbapi.connect(server.flight, db_kwargs=options, autocommit=True)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


@pytest.fixture
def cursor(connect):
    with connect().cursor() as cursor:
        yield cursor


def rows(cursor, sql, *parameters):
    cursor.execute(sql, *parameters)
    return cursor.fetchall()


def plain(schema):
    """A schema without what its fields say for ODBC's sake."""
    return pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])


def test_statements_and_parameters(cursor):
    assert rows(cursor, "SELECT symbol, price FROM trades LIMIT 2") == [(1, 150.0), (2, 150.01)]
    assert rows(cursor, "SELECT count(*) FROM trades WHERE symbol = ? AND price >= ?", (1, 151.0)) == [(167,)]
    assert rows(cursor, "SELECT ? + INTERVAL '1 day'", (datetime.datetime(2024, 1, 1),)) == [
        (datetime.datetime(2024, 1, 2),)
    ]
    assert rows(cursor, "SELECT $2, $1", ("x", None)) == [(None, "x")]


def test_changes_happen_once_and_are_counted(cursor):
    cursor.execute("CREATE TABLE changed (x BIGINT, y VARCHAR)")
    cursor.execute("INSERT INTO changed VALUES (?, ?)", (1, "one"))
    assert cursor.rowcount == 1
    cursor.executemany("INSERT INTO changed VALUES (?, ?)", [(n, str(n)) for n in range(2, 1000)])
    assert cursor.rowcount == 998
    cursor.executemany("UPDATE changed SET y = ? WHERE x = ?", [("zwei", 2), ("drei", 3)])
    assert cursor.rowcount == 2
    assert rows(cursor, "SELECT y FROM changed ORDER BY x LIMIT 3") == [("one",), ("zwei",), ("drei",)]
    cursor.execute("DELETE FROM changed WHERE x > 10")
    assert cursor.rowcount == 989
    assert rows(cursor, "SELECT count(*) FROM changed") == [(10,)]
    with pytest.raises(dbapi.ProgrammingError, match="one row is wanted"):
        cursor.executemany("SELECT * FROM changed WHERE x = ?", [(1,), (2,)])


def test_results_as_arrow(cursor):
    cursor.execute("SELECT * FROM trades")
    table = cursor.fetch_arrow_table()
    assert plain(table.schema).field("timestamp").type == pa.timestamp("ns")
    cursor.execute("SELECT * FROM trades")
    assert sum(batch.num_rows for batch in cursor.fetch_record_batch()) == table.num_rows
    assert cursor.adbc_execute_schema("SELECT symbol FROM trades").names == ["symbol"]
    prepared = cursor.adbc_prepare("SELECT * FROM trades WHERE price > ? AND symbol = ?")
    assert prepared.types == [pa.float64(), pa.int64()]


def test_a_large_result_streams(cursor):
    cursor.execute("SELECT value, value * 2 AS twice FROM generate_series(1, 3000000)")
    reader = cursor.fetch_record_batch()
    first = reader.read_next_batch()
    assert 0 < first.num_rows < 3_000_000
    assert first.num_rows + sum(batch.num_rows for batch in reader) == 3_000_000


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables", "columns"])
def test_objects_at_every_depth(connect, depth):
    (catalog,) = connect().adbc_get_objects(depth=depth).read_all().to_pylist()
    assert catalog["catalog_name"] == "zepto"
    if depth == "catalogs":
        assert catalog["catalog_db_schemas"] is None
        return
    (schema,) = catalog["catalog_db_schemas"]
    assert schema["db_schema_name"] == "public"
    if depth == "db_schemas":
        assert schema["db_schema_tables"] is None
        return
    tables = {table["table_name"]: table for table in schema["db_schema_tables"]}
    assert tables["trades"]["table_type"] == "TABLE"
    if depth == "columns":
        columns = tables["trades"]["table_columns"]
        assert [column["column_name"] for column in columns] == ["symbol", "price", "volume", "timestamp"]
        assert [column["xdbc_type_name"] for column in columns] == ["BIGINT", "DOUBLE", "DOUBLE", "TIMESTAMP"]
        assert columns[0]["ordinal_position"] == 1


def test_objects_are_filtered(connect):
    def names(**filters):
        catalogs = connect().adbc_get_objects(depth="tables", **filters).read_all().to_pylist()
        schemas = [schema for catalog in catalogs for schema in catalog["catalog_db_schemas"] or []]
        return [table["table_name"] for schema in schemas for table in schema["db_schema_tables"] or []]

    assert names(table_name_filter="trad__") == ["trades"]
    assert names(table_name_filter="trad_") == []
    assert "trades" in names(catalog_filter="zepto", db_schema_filter="pub%", table_types_filter=["TABLE"])
    assert names(catalog_filter="other") == []


def test_what_the_driver_asks_about_the_server(connect):
    connection = connect()
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "zepto-flight"
    assert connection.adbc_get_table_types() == ["TABLE"]
    schema = connection.adbc_get_table_schema("trades")
    assert plain(schema) == pa.schema(
        [("symbol", pa.int64()), ("price", pa.float64()), ("volume", pa.float64()), ("timestamp", pa.timestamp("ns"))]
    )
    assert schema.field("price").metadata[b"ARROW:FLIGHT:SQL:TYPE_NAME"] == b"DOUBLE"
    with pytest.raises(dbapi.Error):
        connection.adbc_get_table_schema("no such table")


def test_ingestion_in_every_mode(cursor):
    table = pa.table({"n": [1, 2, 3], "s": ["a", "b", None]})

    def ingest(mode, data=table, **options):
        return cursor.adbc_ingest("ingested", data, mode=mode, **options)

    with pytest.raises(dbapi.ProgrammingError, match="not found"):
        ingest("append")
    assert ingest("create") == 3
    with pytest.raises(dbapi.ProgrammingError, match="exists"):
        ingest("create")
    assert ingest("append") == 3
    assert ingest("create_append", table.to_reader()) == 3
    assert rows(cursor, "SELECT count(*) FROM ingested") == [(9,)]
    assert ingest("replace", pa.table({"other": [1.5]})) == 1
    assert rows(cursor, "SELECT * FROM ingested") == [(1.5,)]
    with pytest.raises(dbapi.NotSupportedError, match="temporary"):
        ingest("create", temporary=True)


def test_partitions_are_read_one_by_one(connect):
    with connect(**{HEADER + "x-zepto-endpoints": "4"}).cursor() as cursor:
        partitions, schema = cursor.adbc_execute_partitions("SELECT * FROM trades")
        assert len(partitions) == 4 and schema.names[0] == "symbol"
        parts = []
        for partition in partitions:
            cursor.adbc_read_partition(partition)
            parts.append(cursor.fetch_arrow_table())
        cursor.execute("SELECT * FROM trades")
        assert pa.concat_tables(parts).equals(cursor.fetch_arrow_table())


def test_columns_are_plain_unless_asked_otherwise(connect):
    table = pa.table({"symbol": pa.array(["a", "b", "a"]).dictionary_encode(), "view": pa.array(["x", "y", "z"], pa.string_view())})
    with connect().cursor() as cursor:
        cursor.adbc_ingest("coded", table, mode="replace")
        cursor.execute("SELECT * FROM coded")
        assert cursor.fetch_arrow_table().schema.types == [pa.string(), pa.string()]
    with connect(**{HEADER + "x-zepto-string-encoding": "keep"}).cursor() as cursor:
        cursor.execute("SELECT * FROM coded")
        assert cursor.fetch_arrow_table().schema.types == [pa.dictionary(pa.int32(), pa.string()), pa.string_view()]


def test_options_of_a_session(connect):
    connection = connect(**{"adbc.flight.sql.rpc.with_cookie_middleware": "true"})
    connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.timestamp_unit": "us"})
    connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.batch_rows": "100"})
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM trades LIMIT 250")
        reader = cursor.fetch_record_batch()
        assert reader.schema.field("timestamp").type == pa.timestamp("us")
        assert [batch.num_rows for batch in reader] == [100, 100, 50]
    with pytest.raises(dbapi.Error):
        connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.colour": "red"})


def test_a_running_query_is_cancelled(cursor):
    sql = "SELECT sum(a.value * b.value) FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b"
    timer = threading.Timer(0.5, cursor.adbc_cancel)
    timer.start()
    began = time.monotonic()
    with pytest.raises(dbapi.Error, match="(?i)cancel"):
        cursor.execute(sql)
        cursor.fetchall()
    assert time.monotonic() - began < 20


def test_errors_have_their_class_and_say_what_is_wrong(cursor):
    with pytest.raises(dbapi.ProgrammingError, match='table "nope" not found') as raised:
        cursor.execute("SELECT * FROM nope")
    assert raised.value.status_code == adbc_driver_manager.AdbcStatusCode.NOT_FOUND
    with pytest.raises(dbapi.ProgrammingError, match="does not parse"):
        cursor.execute("SELEC 1")
    with pytest.raises(dbapi.NotSupportedError, match="not supported"):
        cursor.execute("CREATE VIEW v AS SELECT 1")


def test_any_credentials_are_taken_while_there_are_no_accounts(connect):
    with connect(username="somebody", password="pass:word").cursor() as cursor:
        assert rows(cursor, "SELECT 1") == [(1,)]
    with connect(**{"adbc.flight.sql.authorization_header": "Bearer token"}).cursor() as cursor:
        assert rows(cursor, "SELECT 1") == [(1,)]


def test_transactions_are_refused_and_autocommit_works(server):
    with pytest.warns(Warning, match="Cannot disable autocommit"):
        connection = dbapi.connect(server.flight)
    with connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT 1") == [(1,)]
