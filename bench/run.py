"""Measures zepto-flight and its peers side by side and writes down what came out.

Every round runs every case on every server before the next begins, so that whatever the machine does meanwhile happens to
all of them. `report.py` makes docs/benchmarks.md of the result; `make bench` runs both.
"""

import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys

import pyarrow

import data
import servers
from clients import Clients, percentile

GET = "SELECT * FROM {}"
TINY = "SELECT * FROM numbers_1m LIMIT 10"
TINY_COUNT = 300


def get(server, clients, count, table):
    server.reset_peak()
    resting, cpu = server.memory_bytes("VmRSS"), server.cpu_s()
    results, wall_s = clients.run(count, "get", server.uri, GET.format(table), server.flight_sql)
    rows, size = (sum(result[key] for result in results) for key in ("rows", "bytes"))
    assert rows == count * data.SIZES[table.split("_")[1]], f"{server.name}: {rows} rows"
    return {
        "seconds": wall_s,
        "bytes": size,
        "cpu_s": server.cpu_s() - cpu,
        "peak_bytes": server.memory_bytes("VmHWM") - resting,
        "first_part": max(result["first_s"] for result in results) / wall_s,
    }


def put(server, clients, table, batch_rows, folder):
    cpu = server.cpu_s()
    results, wall_s = clients.run(1, "put", server.uri, f"put_{table}_{batch_rows}", str(folder), table, batch_rows)
    cpu = server.cpu_s() - cpu
    server.forget_puts()
    return {"seconds": wall_s, "bytes": results[0]["bytes"], "cpu_s": cpu}


def tiny(server, clients, count):
    results, wall_s = clients.run(count, "many", server.uri, TINY, server.flight_sql, TINY_COUNT)
    latencies = [latency for result in results for latency in result["seconds"]]
    return {"seconds": wall_s, "p50_s": percentile(latencies, 0.5), "p99_s": percentile(latencies, 0.99)}


def way(server, clients, name, count):
    results, _ = clients.run(1, "ways", server.uri, server.http, GET.format("numbers_1m"), name, count)
    assert results[0]["rows"] == data.SIZES["1m"]
    return {"seconds": statistics.median(results[0]["seconds"])}


def cases(quick, folder):
    """Name of each case, whether a server takes it, and how it is run."""
    big = "1m" if quick else "10m"
    for table in (f"{kind}_{size}" for kind in ("numbers", "strings") for size in dict.fromkeys(("1m", big))):
        for count in (1, 4, 16):
            # Sixteen results of ten million rows are more than servers that gather them have memory for.
            fits = (lambda server: True) if count < 16 or table.endswith("1m") else is_streaming
            yield f"get {table}, {count} clients", fits, lambda s, c, n=count, t=table: get(s, c, n, t)
    for batch_rows in (65_536, 1_000):
        for size in dict.fromkeys(("1m", big)):
            run = lambda s, c, t=f"numbers_{size}", b=batch_rows: put(s, c, t, b, folder)
            yield f"put numbers_{size}, batches of {batch_rows}", lambda server: server.takes_put, run
    for count in (1, 16):
        yield f"tiny query, {count} clients", lambda server: True, lambda s, c, n=count: tiny(s, c, n)
    for name, count in (("Flight", 5), ("HTTP Arrow", 5), ("HTTP JSON", 1)):
        run = lambda s, c, name=name, count=count: way(s, c, name, count)
        yield f"a million rows by {name}", lambda server: server.http, run


def is_streaming(server):
    return server.name in ("zepto-flight", "pyarrow")


def machine():
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "unknown")
    memory = pathlib.Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": model,
        "cores": len(__import__("os").sched_getaffinity(0)),
        "memory_gib": round(int(memory) / 2**20, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "pyarrow": pyarrow.__version__,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, help="the zepto_flight_server to measure")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder for the generated tables")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="JSON file to write")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="pyarrow,duckdb,roapi")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="one million rows at most")
    arguments = parser.parse_args()
    data.make(arguments.data)
    chosen = [case for case in cases(arguments.quick, arguments.data) if arguments.only in case[0]]
    peers = [name for name in arguments.peers.split(",") if name]
    running = [servers.Zepto(arguments.server, arguments.data)]
    clients = Clients(16)
    results = {}
    try:
        for name in peers:
            roapi = name == "roapi"
            running.append(servers.Roapi(arguments.data) if roapi else servers.Peer(name, arguments.data))
        for number in range(arguments.rounds + 1):
            for name, fits, run in chosen:
                for server in filter(fits, running):
                    measured = run(server, clients)
                    # The first round warms up.
                    if number > 0:
                        results.setdefault(name, {}).setdefault(server.name, []).append(measured)
                    print(f"{number}  {name:<40} {server.name:<13} {measured['seconds']:.4f} s", flush=True)
    finally:
        clients.close()
        for server in running:
            server.stop()
    version = subprocess.run([arguments.server, "--version"], capture_output=True, text=True).stdout.strip()
    whole = {"machine": machine(), "version": version, "command": " ".join(sys.argv[1:]), "results": results}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
