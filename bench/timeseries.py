"""Measures time-series SQL beside Polars and DuckDB, and writes docs/timeseries-benchmarks.md with its plots.

We are asked over Flight, from the ticket to the table in the client; the peers answer in a process of their own, so the wire is
on us. Every round asks everybody for every query before the next round begins. Every answer is compared with the other ones.
"""

import argparse
import json
import math
import multiprocessing
import pathlib
import platform
import statistics
import time

import matplotlib
import numpy
import pyarrow
import pyarrow.flight as flight

import servers

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

OPEN = 1_704_187_800_000_000_000
SESSION_NS = 23_400 * 1_000_000_000
TENTH = "timestamp >= TIMESTAMP '2024-01-02 11:00:00' AND timestamp < TIMESTAMP '2024-01-02 11:39:00'"
WINDOW_ROWS_MAX = 1_000_000
SYMBOLS_FILLED = [f"SYM{symbol:06}" for symbol in range(10)]

#: What each query has to do at least, in words and in nanoseconds a row on one core.
EXPECTED = {
    "last rows": ("the last row of each symbol of each segment", 0.0),
    "first and last time": ("the bounds of each segment", 0.0),
    "last 100 rows": ("one segment", 0.0),
    "symbols": ("one row of each symbol of each segment", 0.0),
    "sum by symbol": ("a code and a value of each row, added", 1.0),
    "vwap by symbol": ("a code and two values", 1.5),
    "bars": ("a code, a time, a price and a volume into a bucket", 3.0),
    "ema": ("a code and a value, a multiplication, and 8 bytes out", 2.0),
    "rolling mean": ("a code, a value in, a value out, and 8 bytes out", 3.0),
    "as-of": ("two rows seen, one picked, 40 bytes out", 5.0),
    "as-of, summed": ("two rows seen, one picked", 3.0),
    "mean in a tenth": ("a tenth of the rows, as sum by symbol", 0.1),
    "one symbol in a tenth": ("a tenth of the codes compared", 0.1),
    "count above a price": ("a value of each row, compared", 0.4),
    "large trades of a symbol": ("a code of each row, compared", 0.2),
    "gaps filled": ("a code of each row compared, and 234,000 rows out", 0.3),
    "window mean": ("two searches and twenty values added", 30.0),
}


def tables(rows, symbols, late):
    """Trades and quotes of `symbols` symbols in one session, `late` of a hundred rows up to a minute late."""
    random = numpy.random.default_rng(7)
    made = {}
    for name, columns in (("trades", ("price", "volume")), ("quotes", ("bid", "ask"))):
        at = OPEN + numpy.sort(random.integers(0, SESSION_NS, rows))
        if late:
            order = numpy.arange(rows, dtype="float64")
            moved = random.random(rows) < late / 100
            order[moved] += rows * 60 / 23_400
            at = at[numpy.argsort(order, kind="stable")]
        names = pyarrow.array([f"SYM{number:06d}" for number in range(symbols)])
        values = {column: numpy.round(random.normal(100, 5, rows), 2) for column in columns}
        made[name] = pyarrow.table(
            {
                "symbol": names.take(pyarrow.array(random.integers(0, symbols, rows))),
                "timestamp": pyarrow.array(at).view(pyarrow.timestamp("ns")),
                **values,
            }
        )
    return made


def queries():
    """For each query: ours, DuckDB's and Polars' way to say it; the answer is compared by its rows and the sum of column v."""
    over = "OVER (PARTITION BY symbol ORDER BY timestamp ROWS BETWEEN 19 PRECEDING AND CURRENT ROW)"
    asof = "trades t ASOF JOIN quotes q ON t.symbol = q.symbol AND t.timestamp >= q.timestamp"
    by = "FROM trades GROUP BY symbol"
    bar = "time_bucket(INTERVAL '5 minutes', timestamp)"
    window = "q.timestamp BETWEEN t.timestamp - INTERVAL '10 seconds' AND t.timestamp"

    def pl(make):
        return lambda polars, trades, quotes: make(polars, trades, quotes)

    def joined(polars, trades, quotes):
        return trades.join_asof(quotes, on="timestamp", by="symbol", check_sortedness=False).filter(
            polars.col("bid").is_not_null()
        )

    yield "sum by symbol", f"SELECT symbol, sum(volume) AS v {by}", None, pl(
        lambda p, t, q: t.group_by("symbol").agg(p.col("volume").sum().alias("v"))
    )
    yield "vwap by symbol", f"SELECT symbol, vwap(price, volume) AS v {by}", (
        f"SELECT symbol, sum(price * volume) / sum(volume) AS v {by}"
    ), pl(
        lambda p, t, q: t.group_by("symbol").agg(
            ((p.col("price") * p.col("volume")).sum() / p.col("volume").sum()).alias("v")
        )
    )
    bars = "symbol, {} AS bar, {}, max(price) AS high, min(price) AS low, {}, sum(volume) AS v FROM trades GROUP BY symbol, bar"
    yield "bars", "SELECT " + bars.format(bar, "first(price) AS open", "last(price) AS close"), (
        "SELECT " + bars.format(bar, "arg_min(price, timestamp) AS open", "arg_max(price, timestamp) AS close")
    ), pl(
        lambda p, t, q: t.group_by("symbol", p.col("timestamp").dt.truncate("5m").alias("bar")).agg(
            p.col("price").first().alias("open"),
            p.col("price").max().alias("high"),
            p.col("price").min().alias("low"),
            p.col("price").last().alias("close"),
            p.col("volume").sum().alias("v"),
        )
    )
    yield "as-of", f"SELECT t.symbol, t.timestamp, t.price, q.bid AS v, q.ask FROM {asof}", None, pl(
        lambda p, t, q: joined(p, t.select("symbol", "timestamp", "price"), q).rename({"bid": "v"})
    )
    yield "as-of, summed", f"SELECT sum(q.bid) AS v FROM {asof}", None, pl(
        lambda p, t, q: joined(p, t.select("symbol", "timestamp"), q.select("symbol", "timestamp", "bid")).select(
            p.col("bid").sum().alias("v")
        )
    )
    yield "ema", "SELECT ema(price, 20) OVER (PARTITION BY symbol ORDER BY timestamp) AS v FROM trades", False, pl(
        lambda p, t, q: t.select(p.col("price").ewm_mean(span=20, adjust=False).over("symbol").alias("v"))
    )
    yield "rolling mean", f"SELECT avg(price) {over} AS v FROM trades", None, pl(
        lambda p, t, q: t.select(p.col("price").rolling_mean(20, min_samples=1).over("symbol").alias("v"))
    )
    yield "last rows", "SELECT symbol, timestamp, price AS v FROM trades LATEST ON timestamp PARTITION BY symbol", (
        "SELECT symbol, max(timestamp) AS timestamp, arg_max(price, timestamp) AS v FROM trades GROUP BY symbol"
    ), pl(lambda p, t, q: t.group_by("symbol").agg(p.col("price").last().alias("v")))
    yield "last 100 rows", "SELECT *, price AS v FROM trades ORDER BY timestamp DESC LIMIT 100", None, pl(
        lambda p, t, q: t.top_k(100, by="timestamp").with_columns(p.col("price").alias("v"))
    )
    yield "first and last time", "SELECT epoch_ms(max(timestamp)) - epoch_ms(min(timestamp)) AS v FROM trades", (
        "SELECT epoch_ns(max(timestamp)) // 1000000 - epoch_ns(min(timestamp)) // 1000000 AS v FROM trades"
    ), pl(
        lambda p, t, q: t.select(
            (p.col("timestamp").max().dt.epoch("ms") - p.col("timestamp").min().dt.epoch("ms")).alias("v")
        )
    )
    yield "symbols", "SELECT DISTINCT symbol, 1 AS v FROM trades", None, pl(
        lambda p, t, q: t.select(p.col("symbol").unique()).with_columns(p.lit(1).alias("v"))
    )

    def tenth(p):
        low, high = (p.lit(f"2024-01-02T{at}").str.to_datetime(time_unit="ns") for at in ("11:00:00", "11:39:00"))
        return (p.col("timestamp") >= low) & (p.col("timestamp") < high)

    yield "mean in a tenth", f"SELECT symbol, avg(price) AS v FROM trades WHERE {TENTH} GROUP BY symbol", None, pl(
        lambda p, t, q: t.filter(tenth(p)).group_by("symbol").agg(p.col("price").mean().alias("v"))
    )
    yield "one symbol in a tenth", f"SELECT timestamp, price AS v FROM trades WHERE symbol = 'SYM000042' AND {TENTH}", None, pl(
        lambda p, t, q: t.filter((p.col("symbol") == "SYM000042") & tenth(p)).select(
            "timestamp", p.col("price").alias("v")
        )
    )
    yield "count above a price", "SELECT count(*) AS v FROM trades WHERE price > 100", None, pl(
        lambda p, t, q: t.select((p.col("price") > 100).sum().alias("v"))
    )
    yield "large trades of a symbol", "SELECT *, price AS v FROM trades WHERE symbol = 'SYM000042' AND volume > 105", None, pl(
        lambda p, t, q: t.filter((p.col("symbol") == "SYM000042") & (p.col("volume") > 105)).with_columns(p.col("price").alias("v"))
    )
    few = "symbol IN (" + ", ".join(f"'{symbol}'" for symbol in SYMBOLS_FILLED) + ")"
    seconds = "SELECT unnest(generate_series(TIMESTAMP '2024-01-02 09:30:00', TIMESTAMP '2024-01-02 15:59:59', INTERVAL 1 SECOND))::TIMESTAMP_NS AS bar"
    yield "gaps filled", (
        f"SELECT symbol, timestamp, avg(price) AS v FROM trades WHERE {few} SAMPLE BY 1s FROM '2024-01-02T09:30:00' TO '2024-01-02T16:00:00' FILL(PREV)"
    ), (
        f"WITH bars AS (SELECT symbol, time_bucket(INTERVAL 1 SECOND, timestamp) AS bar, avg(price) AS mean FROM trades WHERE {few} GROUP BY ALL), "
        f"grid AS (FROM (SELECT DISTINCT symbol FROM bars), ({seconds})) "
        "SELECT symbol, bar, last_value(mean IGNORE NULLS) OVER (PARTITION BY symbol ORDER BY bar) AS v FROM grid LEFT JOIN bars USING (symbol, bar)"
    ), pl(gaps_by_polars)
    yield "window mean", f"SELECT t.timestamp, avg(q.bid) AS v FROM trades t WINDOW JOIN quotes q ON t.symbol = q.symbol AND {window}", (
        f"SELECT t.rowid, avg(q.bid) AS v FROM trades t LEFT JOIN quotes q ON t.symbol = q.symbol AND {window} GROUP BY t.rowid"
    ), None


def gaps_by_polars(polars, trades, _):
    """Means of each second of ten symbols, and the one before where there is none."""
    second = polars.col("timestamp").dt.truncate("1s").alias("bar")
    bars = trades.filter(polars.col("symbol").is_in(SYMBOLS_FILLED)).group_by("symbol", second).agg(polars.col("price").mean().alias("v"))
    session = polars.from_numpy(OPEN + numpy.arange(SESSION_NS // 10**9) * 10**9, schema=["bar"])
    session = session.with_columns(polars.col("bar").cast(polars.Datetime("ns")))
    grid = bars.select(polars.col("symbol").unique()).join(session, how="cross")
    filled = grid.join(bars, on=["symbol", "bar"], how="left").sort("symbol", "bar")
    return filled.with_columns(polars.col("v").forward_fill().over("symbol"))


def answer_of(table):
    """The rows of an answer and the sum of its column v, without NULL."""
    column = table.column("v").to_numpy(zero_copy_only=False).astype("float64")
    return table.num_rows, float(numpy.nansum(column))


def peer(kind, made, questions, pipe):
    """Runs in a process of its own: answers the names of queries with the time that they took, and what came out."""
    if kind == "duckdb":
        import duckdb

        engine = duckdb.connect()
        for name, table in made.items():
            engine.register("arrow_table", table)
            engine.execute(f"CREATE TABLE {name} AS SELECT * FROM arrow_table")

        def run(query):
            sql = query[1] if query[2] is None else query[2]
            return engine.execute(sql).to_arrow_table() if sql else None
    elif kind == "datafusion":
        import datafusion

        engine = datafusion.SessionContext()
        for name, table in made.items():
            engine.from_arrow(table, name)

        def run(query):
            # DuckDB's SQL, as far as it goes.
            sql = query[1] if query[2] is None else query[2]
            return engine.sql(sql).to_arrow_table() if sql else None
    else:
        import polars

        trades, quotes = (polars.from_arrow(made[name]).set_sorted("timestamp") for name in ("trades", "quotes"))

        def run(query):
            return query[3](polars, trades, quotes).to_arrow() if query[3] else None

    known = {query[0]: query for query in questions}
    while (name := pipe.recv()) is not None:
        try:
            began = time.perf_counter()
            table = run(known[name])
            took = time.perf_counter() - began
            pipe.send(None if table is None else (took * 1e3, *answer_of(table)))
        except Exception as error:  # noqa: BLE001 - a peer that cannot is shown as such
            print(f"{kind}: {name}: {error}", flush=True)
            pipe.send(None)


def agree(one, other):
    return one[0] == other[0] and math.isclose(one[1], other[1], rel_tol=1e-6, abs_tol=1e-6)


def measure(binary, rows, symbols, late, rounds, peers):
    made = tables(rows, symbols, late)
    server = servers.Empty(binary)
    workers = {}
    try:
        client = flight.connect(server.uri)
        for name, table in made.items():
            servers.put(client, name, table, 65_536)
        questions = [query for query in queries() if query[0] != "window mean" or rows <= WINDOW_ROWS_MAX]
        context = multiprocessing.get_context("fork")
        for kind in peers:
            ours, theirs = context.Pipe()
            process = context.Process(target=peer, args=(kind, made, questions, theirs), daemon=True)
            process.start()
            workers[kind] = ours
        resting = server.memory_bytes("VmRSS")
        results = {query[0]: {} for query in questions}
        for _ in range(rounds):
            for query in questions:
                best = None
                for _ in range(3):
                    server.reset_peak()
                    began = time.perf_counter()
                    table = client.do_get(flight.Ticket(query[1].encode())).read_all()
                    took = (time.perf_counter() - began) * 1e3
                    peak = server.memory_bytes("VmHWM") - resting
                    best = min(best or (took, peak), (took, peak))
                answer = answer_of(table)
                entry = results[query[0]]
                entry.setdefault("zepto", []).append(best[0])
                entry.setdefault("peak_bytes", []).append(best[1])
                for kind, pipe in workers.items():
                    times = []
                    for _ in range(3):
                        pipe.send(query[0])
                        came = pipe.recv()
                        if came is None:
                            break
                        times.append(came[0])
                        # Late rows have no order that Polars could be told of: its answers are others there.
                        if not late and not agree(answer, came[1:]):
                            raise SystemExit(f"{query[0]}: {answer} and {kind}'s {came[1:]}")
                    if times:
                        entry.setdefault(kind, []).append(min(times))
        return results
    finally:
        for pipe in workers.values():
            pipe.send(None)
        server.stop()


def line(name, entry, rows, peers):
    ours = statistics.median(entry["zepto"])
    others = {kind: statistics.median(entry[kind]) for kind in peers if kind in entry}
    ratios = [
        min(entry[kind][at] for kind in others) / mine for at, mine in enumerate(entry["zepto"]) if others
    ]
    words, ns = EXPECTED[name]
    cells = [name, f"{ours:.1f}", *(f"{others[kind]:.1f}" if kind in others else "–" for kind in peers)]
    cells.append(f"{statistics.median(ratios):.1f}" if ratios else "–")
    cells.append(f"{words}: {ns * rows / 1e6 / 2:.1f} ms" if ns else words)
    cells.append(f"{statistics.median(entry['peak_bytes']) / 2**20:.0f}")
    return "| " + " | ".join(cells) + " |"


def plot(results, path):
    """Milliseconds by rows, for every query that was measured at several sizes."""
    sizes = sorted({run["rows"] for run in results["runs"] if run["symbols"] == 100 and not run["late"]})
    figure, axes = pyplot.subplots(figsize=(8, 5))
    for name in EXPECTED:
        points = []
        for run in results["runs"]:
            if run["symbols"] == 100 and not run["late"] and name in run["results"]:
                points.append((run["rows"], statistics.median(run["results"][name]["zepto"])))
        if len(points) > 1:
            axes.plot(*zip(*sorted(points)), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="rows", ylabel="ms, over Flight", xticks=sizes)
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def page(results):
    text = [
        "# Benchmarks of time-series SQL",
        "",
        "Written by `make bench-timeseries`. Milliseconds, the median of the rounds; in each the best of three. We are asked over Flight, from the ticket",
        "to the table in the client; Polars, DuckDB and DataFusion answer in process, as far as they can. The ratio is the fastest peer's time to ours, the median of each round's:",
        "above 1 we are faster. Every answer in order was compared with the peers'. *At least* says what a query cannot do without, as two cores would take for it by",
        "arithmetic; what the wire takes comes on top. *MiB* is what the server's memory rose by while it ran, what the answer needs on its way included.",
        "",
        f"{results['machine']}; {', '.join(f'{name} {version}' for name, version in results['versions'].items())}.",
        "",
        "![Milliseconds by rows](benchmarks/timeseries.svg)",
    ]
    for run in results["runs"]:
        peers = run["peers"]
        late = f", {run['late']} % of the rows up to a minute late" if run["late"] else ", in order"
        text += [
            "",
            f"## {run['rows']:,} rows, {run['symbols']:,} symbols{late}",
            "",
            "| query | ours | " + "".join(f"{kind} | " for kind in peers) + "ratio | at least | MiB |",
            "|---|" + "---:|" * (len(peers) + 2) + "---|---:|",
        ]
        text += [line(name, entry, run["rows"], peers) for name, entry in run["results"].items()]
    notes = (pathlib.Path(__file__).parent / "timeseries_notes.md").read_text()
    return "\n".join(text) + "\n\n" + notes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", default="1000000:100:0,10000000:100:0,1000000:100000:0,1000000:100:2,100000000:100:0:alone")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs"))
    options = parser.parse_args()
    import datafusion
    import duckdb
    import polars

    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "")
    versions = {"Polars": polars.__version__, "DuckDB": duckdb.__version__, "DataFusion": datafusion.__version__, "pyarrow": pyarrow.__version__}
    machine = f"{multiprocessing.cpu_count()} cores, {cpu}, {platform.system()}"
    results = {"machine": machine, "versions": versions, "runs": []}
    for spec in options.runs.split(","):
        rows, symbols, late, *alone = spec.split(":")
        peers = [] if alone else ["polars", "duckdb", "datafusion"]
        run = {"rows": int(rows), "symbols": int(symbols), "late": int(late), "peers": peers}
        run["results"] = measure(options.server, run["rows"], run["symbols"], run["late"], options.rounds, peers)
        results["runs"].append(run)
        print(json.dumps(run), flush=True)
    folder = options.out / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    plot(results, folder / "timeseries.svg")
    (options.out / "timeseries-benchmarks.md").write_text(page(results))


if __name__ == "__main__":
    main()
