"""Ten million rows in and out, and what they cost in memory."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from conftest import start, stop

BATCH_ROWS = 65_536
ROWS = 10_000_000


def ten_million() -> pa.Table:
    n = np.arange(ROWS, dtype=np.int64)
    names = pa.array(["AAPL", "MSFT", "GOOG", "a longer name than most", None])
    return pa.table(
        {
            "n": n,
            "at": pa.array(n * 1_000_000 + 1_711_234_567_000_000_000, pa.timestamp("ns")),
            "price": n / 7.0,
            "name": names.take(pa.array(n % 5)),
        }
    )


def test_ten_million_rows_come_back_equal_in_bounded_memory():
    server = start()
    try:
        table = ten_million()
        before = server.peak_bytes()
        with server.connect() as client:
            writer, reader = client.do_put(fl.FlightDescriptor.for_path("big"), table.schema)
            writer.write_table(table, max_chunksize=BATCH_ROWS)
            writer.done_writing()
            assert b'"rows":10000000' in reader.read().to_pybytes()
            writer.close()
            after_put = server.peak_bytes()
            back = client.do_get(fl.Ticket("SELECT * FROM big")).read_all()
            assert back.equals(table)
            after_get = server.peak_bytes()
        print(f"data {table.nbytes >> 20} MiB, put {(after_put - before) >> 20} MiB, get {(after_get - after_put) >> 20} MiB")
        assert after_get - before < 2.5 * table.nbytes
        assert after_get - after_put < 256 << 20, "a read of everything grows by a few batches, not by the result"
    finally:
        stop(server)


def test_a_writer_that_is_killed_leaves_nothing():
    server = start("--ticks", "10")
    try:
        code = f"""
import pyarrow as pa, pyarrow.flight as fl, time
client = fl.connect("{server.flight}")
table = pa.table({{"n": range(100_000)}})
writer, _ = client.do_put(fl.FlightDescriptor.for_path("half"), table.schema)
for _ in range(10):
    writer.write_table(table)
print("writing", flush=True)
time.sleep(60)
"""
        for _ in range(3):
            child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
            assert child.stdout.readline() == b"writing\n"
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        time.sleep(0.5)
        with server.connect() as client:
            assert [info.descriptor.path for info in client.list_flights()] == [[b"trades"]]
    finally:
        stop(server)


def test_a_reader_that_cancels_frees_its_place():
    server = start("--query-concurrency-max", "1")
    try:
        with server.connect() as client:
            for _ in range(5):
                reader = client.do_get(fl.Ticket("SELECT * FROM generate_series(1, 1000000000000)"))
                reader.read_chunk()
                reader.cancel()
                deadline = time.monotonic() + 10
                while True:
                    try:
                        assert client.do_get(fl.Ticket("SELECT 1 AS a")).read_all().num_rows == 1
                        break
                    except pa.lib.ArrowException:
                        assert time.monotonic() < deadline, "a cancelled query goes on"
                        time.sleep(0.05)
    finally:
        stop(server)


def test_a_stop_ends_what_runs_and_says_so():
    server = start("--shutdown-grace-ms", "300")
    with server.connect() as client:
        reader = client.do_get(fl.Ticket("SELECT * FROM generate_series(1, 1000000000000)"))
        reader.read_chunk()
        stopper = threading.Thread(target=stop, args=(server,))
        stopper.start()
        try:
            while True:
                reader.read_chunk()
        except fl.FlightUnavailableError as error:
            assert "shutting down" in str(error)
        stopper.join()
