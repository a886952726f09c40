"""Measures what durability costs, and writes docs/durability-benchmarks.md.

Everything is a ratio to something measured beside it, in alternating rounds: the same puts into memory, the disk's own writes of the
same pattern, the same commits in SQLite, DuckDB and ClickHouse with their own durable settings.
"""

import argparse
import concurrent.futures
import mmap
import os
import pathlib
import platform
import shutil
import sqlite3
import statistics
import subprocess
import threading
import time
import urllib.request

import pyarrow
import pyarrow.flight as flight

import servers

BLOCK = 4096
PIECE = 1 << 20
BATCH_ROWS = 65_536
PUT_BATCHES = 128
COMMIT_ROWS = 1_000


class Durable(servers.Empty):
    """Ours, on a directory."""

    def __init__(self, binary, directory, *flags):
        command = [binary, "--flight-port", "0", "--http-port", "0", "--log-level", "warn"]
        where = ["--data-dir", str(directory)] if directory else ["--backend", "memory:"]
        super(servers.Empty, self).__init__([*command, *where, *flags])
        self.read_banner()

    def read_banner(self):
        for line in self.process.stdout:
            if "grpc://" in line and "flight:" in line:
                self.uri = line.split()[-1]
            if "http://" in line:
                self.http = line.split()[-1]
            if line.strip().startswith("data:"):
                self.banner = line.strip()
                return


def columns(rows):
    """Trades of `rows` rows, 32 bytes each."""
    numbers = pyarrow.array(range(rows), pyarrow.int64())
    price = pyarrow.array([100.0 + at % 7 for at in range(rows)], pyarrow.float64())
    return pyarrow.table({"symbol": numbers, "price": price, "volume": price, "timestamp": numbers.cast("timestamp[ns]")})


def put(client, table, batches):
    writer, reader = client.do_put(flight.FlightDescriptor.for_path(table), batches[0].schema)
    for batch in batches:
        writer.write_batch(batch)
    writer.done_writing()
    reader.read()
    writer.close()


def sql(server, text):
    urllib.request.urlopen(urllib.request.Request(server.http, data=text.encode())).read()


class RawDisk:
    """A file of zeros on the same disk, written past the cache."""

    def __init__(self, directory, length):
        self.length = length
        self.path = pathlib.Path(directory) / "raw"
        self.file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        self.page = mmap.mmap(-1, PIECE)
        for offset in range(0, length, PIECE):
            os.pwrite(self.file, self.page, offset)
        os.fsync(self.file)

    def write_all(self, length, in_flight=4):
        """Writes so many bytes in pieces of 1 MiB, durable each, several at the same time; returns seconds."""
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(in_flight) as pool:
            write = lambda offset: os.pwritev(self.file, [self.page], offset % self.length, os.RWF_DSYNC)  # noqa: E731
            list(pool.map(write, range(0, length, PIECE)))
        return time.perf_counter() - began

    def sync_s(self, count):
        """Overwrites one block and syncs, so often; returns the seconds of each."""
        took = []
        block = memoryview(self.page)[:BLOCK]
        for at in range(count):
            began = time.perf_counter()
            os.pwritev(self.file, [block], at % 1000 * BLOCK)
            os.fdatasync(self.file)
            took.append(time.perf_counter() - began)
        return took


def rate(seconds, amount):
    return amount / statistics.median(seconds)


def large_puts(binary, directory, rounds):
    table = columns(BATCH_ROWS)
    batch = table.to_batches()[0]
    batches, length = [batch] * PUT_BATCHES, batch.nbytes * PUT_BATCHES
    raw = RawDisk(directory, 256 << 20)
    kept, memory = Durable(binary, directory / "data"), Durable(binary, None)
    took = {"raw": [], "file": [], "memory": []}
    for at in range(rounds):
        took["raw"].append(raw.write_all(length))
        for name, server in (("file", kept), ("memory", memory)):
            with flight.connect(server.uri) as client:
                began = time.perf_counter()
                put(client, f"t{at}", batches)
                took[name].append(time.perf_counter() - began)
                if name == "memory":
                    sql(server, f"DROP TABLE t{at}")
    stored = sum(file.stat().st_size for file in (directory / "data" / "journal").iterdir())
    kept.stop()
    began = time.perf_counter()
    again = Durable(binary, directory / "data")
    recovered_s = time.perf_counter() - began
    again.stop()
    memory.stop()
    rates = {name: rate(seconds, length) for name, seconds in took.items()}
    rates["recovery"] = stored / recovered_s
    return rates


def small_puts(binary, directory, rounds):
    """Seconds of commits of one row, by one client and by sixteen, and of the disk's own sync."""
    row = columns(1).to_batches()
    raw = RawDisk(directory, 16 << 20)
    kept = Durable(binary, directory / "data")
    memory = Durable(binary, None)
    found = {"sync": [], "one": [], "one, in memory": [], "sixteen": []}
    counts = {"one": [], "sixteen": []}

    def commits(server, count):
        took = []
        with flight.connect(server.uri) as client:
            for _ in range(count):
                began = time.perf_counter()
                put(client, "t", row)
                took.append(time.perf_counter() - began)
        return took

    for _ in range(rounds):
        found["sync"] += raw.sync_s(200)
        began = time.perf_counter()
        found["one"] += commits(kept, 200)
        counts["one"].append(200 / (time.perf_counter() - began))
        found["one, in memory"] += commits(memory, 200)
        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for took in pool.map(lambda _: commits(kept, 50), range(16)):
                found["sixteen"] += took
        counts["sixteen"].append(16 * 50 / (time.perf_counter() - began))
    kept.stop()
    memory.stop()
    p50 = {name: statistics.median(seconds) for name, seconds in found.items()}
    return p50, {name: statistics.median(count) for name, count in counts.items()}


def peers(binary, directory, rounds):
    """Rows a second of one client that commits a thousand rows at a time, durably."""
    table = columns(COMMIT_ROWS)
    rows = list(zip(*(column.cast("int64").to_pylist() for column in table.columns)))
    batches = table.to_batches()
    kept = Durable(binary, directory / "data")
    client = flight.connect(kept.uri)
    lite = sqlite3.connect(directory / "sqlite", isolation_level=None)
    lite.execute("PRAGMA journal_mode = WAL")
    lite.execute("PRAGMA synchronous = FULL")
    lite.execute("CREATE TABLE t (symbol INTEGER, price REAL, volume REAL, timestamp INTEGER)")

    def sqlite_commit():
        lite.execute("BEGIN")
        lite.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", rows)
        lite.execute("COMMIT")

    commits = {"zepto-flight": lambda: put(client, "t", batches), "SQLite, WAL, synchronous FULL": sqlite_commit}
    try:
        import duckdb

        duck = duckdb.connect(str(directory / "duckdb"))
        duck.execute("CREATE TABLE t (symbol BIGINT, price DOUBLE, volume DOUBLE, timestamp TIMESTAMP_NS)")
        duck.register("arrived", table)
        commits[f"DuckDB {duckdb.__version__}"] = lambda: duck.execute("INSERT INTO t SELECT * FROM arrived")
    except ImportError:
        print("SKIPPED: no duckdb")
    try:
        import chdb
        from chdb.session import Session

        click = Session(str(directory / "chdb"))
        click.query("CREATE DATABASE b; ")
        click.query(
            "CREATE TABLE b.t (symbol Int64, price Float64, volume Float64, timestamp Int64) ENGINE = MergeTree ORDER BY tuple() "
            "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1"
        )
        text = ",".join(str(row) for row in rows)
        commits[f"ClickHouse (chdb {chdb.__version__}), fsync_after_insert"] = lambda: click.query(
            f"INSERT INTO b.t VALUES {text}"
        )
    except ImportError:
        print("SKIPPED: no chdb")
    took = {name: [] for name in commits}
    for _ in range(rounds):
        for name, commit in commits.items():
            began = time.perf_counter()
            for _ in range(50):
                commit()
            took[name].append(time.perf_counter() - began)
    client.close()
    kept.stop()
    return {name: rate(seconds, 50 * COMMIT_ROWS) for name, seconds in took.items()}


def reads_beside_puts(binary, directory, rounds):
    """Seconds of a query over a million rows while another client puts, on a directory and in memory."""
    million = columns(1_000_000).to_batches(BATCH_ROWS)
    row = columns(COMMIT_ROWS).to_batches()
    kept = {"file": Durable(binary, directory / "data"), "memory": Durable(binary, None)}
    found = {name: [] for name in kept}
    for server in kept.values():
        with flight.connect(server.uri) as client:
            put(client, "read", million)
    for _ in range(rounds):
        for name, server in kept.items():
            is_over = threading.Event()

            def keep_putting(uri=server.uri, is_over=is_over):
                with flight.connect(uri) as client:
                    while not is_over.is_set():
                        put(client, "written", row)
                        time.sleep(0.002)

            thread = threading.Thread(target=keep_putting)
            thread.start()
            with flight.connect(server.uri) as client:
                for _ in range(30):
                    began = time.perf_counter()
                    client.do_get(flight.Ticket("SELECT symbol, price FROM read WHERE price > 103")).read_all()
                    found[name].append(time.perf_counter() - began)
            is_over.set()
            thread.join()
    for server in kept.values():
        server.stop()
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def report(version, large, small, commits, others, reads):
    gb = 1e9
    wanted = min(large["raw"], 0.7 * large["memory"])
    best = max((rows, name) for name, rows in others.items() if name != "zepto-flight")
    ours = others["zepto-flight"]
    lines = [
        "# What durability costs",
        "",
        f"Written by `make bench-durable`: {version}, {platform.machine()}, {os.cpu_count()} cores, {platform.release()}.",
        "Every line is measured beside what it is compared with, in alternating rounds. [Durability](durability.md) says what is promised.",
        "",
        "| case | here | beside it | ratio | aim |",
        "|---|---|---|---|---|",
        f"| put of {PUT_BATCHES} batches of 64k rows, on the disk | {large['file'] / gb:.2f} GB/s | the lower of the disk's own "
        f"{large['raw'] / gb:.2f} and 0.7 × {large['memory'] / gb:.2f} in memory | {large['file'] / wanted:.2f} | ≥ 0.8 |",
        f"| put of one row, one client, p50 | {small['one'] * 1e6:.0f} µs | one block written and synced: {small['sync'] * 1e6:.0f} µs | "
        f"{small['one'] / small['sync']:.2f} | ≤ 1.3 |",
        f"| the same in memory | {small['one, in memory'] * 1e6:.0f} µs | | {small['one, in memory'] / small['sync']:.2f} | |",
        f"| put of one row, sixteen clients, p50 | {small['sixteen'] * 1e6:.0f} µs | the same | {small['sixteen'] / small['sync']:.2f} | ≤ 1.5 |",
        f"| commits a second, sixteen clients | {commits['sixteen']:.0f} | one client: {commits['one']:.0f} | "
        f"{commits['sixteen'] / commits['one']:.1f} | ≥ 10 |",
        f"| rows a second, one client, 1,000 rows a commit | {ours:,.0f} | {best[1]}: {best[0]:,.0f} | {ours / best[0]:.1f} | ≥ 3 |",
        f"| query over a million rows while another client puts | {reads['file'] * 1e3:.1f} ms | in memory: {reads['memory'] * 1e3:.1f} ms | "
        f"{reads['memory'] / reads['file']:.2f} | ≥ 0.95 |",
        f"| start | {large['recovery'] / gb:.2f} GB of journal a second | | | ≥ 1 |",
        "",
        "| one client, 1,000 rows a commit, durable | rows a second |",
        "|---|---|",
        *(f"| {name} | {rows:,.0f} |" for name, rows in sorted(others.items(), key=lambda item: -item[1])),
        "",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--directory", default="target/bench/durable")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="docs/durability-benchmarks.md")
    arguments = parser.parse_args()
    root = pathlib.Path(arguments.directory).absolute()
    results = []
    for case in (large_puts, small_puts, peers, reads_beside_puts):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        results.append(case(arguments.server, root, arguments.rounds))
        print(case.__name__, results[-1], flush=True)
    shutil.rmtree(root, ignore_errors=True)
    version = subprocess.run([arguments.server, "--version"], capture_output=True, text=True).stdout.strip()
    large, (small, commits), others, reads = results
    pathlib.Path(arguments.out).write_text(report(version, large, small, commits, others, reads))


if __name__ == "__main__":
    main()
