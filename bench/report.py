"""Writes docs/benchmarks.md and its plots from what run.py measured. The figures in that page are never written by hand; the notes on
them are notes.md."""

import argparse
import json
import pathlib
import statistics

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot  # noqa: E402

OURS = "zepto-flight"
MIB = 2**20


def rate(run):
    return run["bytes"] / run["seconds"] / 1e9


def cpu_per_gb(run):
    return run["cpu_s"] / (run["bytes"] / 1e9)


def speed(run):
    return 1 / run["seconds"]


#: What is compared, of which cases: title, the cases that begin so, the figure, its unit, whether more is better.
FIGURES = [
    ("Reading: throughput", "get", rate, "GB/s", True),
    ("Reading: CPU of the server", "get", cpu_per_gb, "s per GB", False),
    ("Reading: first batch, as a part of the whole's time", "get", lambda run: run["first_part"], "", False),
    ("Reading: peak memory above the table", "get", lambda run: run["peak_bytes"] / MIB, "MiB", False),
    ("Writing: throughput", "put", rate, "GB/s", True),
    ("Writing: CPU of the server", "put", cpu_per_gb, "s per GB", False),
    ("A tiny query: median", "tiny", lambda run: run["p50_s"] * 1e3, "ms", False),
    ("A tiny query: 99th percentile", "tiny", lambda run: run["p99_s"] * 1e3, "ms", False),
    ("The same rows three ways, on a connection that is there already", "a million", lambda run: run["seconds"] * 1e3, "ms", False),
]


def number(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def spread(values):
    return f"{number(statistics.median(values))} ({number(min(values))}–{number(max(values))})"


def ratio(ours, theirs):
    """Median of the ratios of each round: both were measured within moments of each other. None where theirs is nothing."""
    if 0 in theirs:
        return None
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def measures(figure, name):
    """CPU time is counted in hundredths of a second: too coarse for a million rows."""
    return figure is not cpu_per_gb or "10m" in name


def table(results, prefix, figure, unit):
    servers = list(dict.fromkeys(server for runs in results.values() for server in runs))
    cases = {name: runs for name, runs in results.items() if name.startswith(prefix) and measures(figure, name)}
    servers = [server for server in servers if any(server in runs for runs in cases.values())]
    yield "| case | " + " | ".join(servers) + " | " + " | ".join(f"× {peer}" for peer in servers if peer != OURS) + " |"
    yield "|---" * (2 * len(servers)) + "|"
    for name, runs in cases.items():
        values = {server: [figure(run) for run in runs[server]] for server in runs}
        cells = [spread(values[server]) if server in values else "–" for server in servers]
        peers = [peer for peer in servers if peer != OURS]
        ratios = [ratio(values[OURS], values[peer]) if peer in values else None for peer in peers]
        cells += ["–" if value is None else f"{value:.2f}" for value in ratios]
        yield f"| {name} | " + " | ".join(cells) + " |"


def plot(results, prefix, figure, title, path):
    cases = [name for name in results if name.startswith(prefix) and "10m" in name] or list(results)
    servers = list(dict.fromkeys(server for name in cases for server in results[name]))
    shape, axes = pyplot.subplots(figsize=(9, 0.5 + 0.22 * len(cases) * (len(servers) + 1)))
    height = 0.8 / len(servers)
    for at, server in enumerate(servers):
        places = [place + at * height for place, name in enumerate(cases) if server in results[name]]
        values = [statistics.median(map(figure, results[name][server])) for name in cases if server in results[name]]
        axes.barh(places, values, height, label=server)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], cases)
    axes.invert_yaxis()
    axes.set_title(title)
    axes.legend()
    shape.tight_layout()
    shape.savefig(path, metadata={"Date": None})
    pyplot.close(shape)


def targets(results):
    """What was aimed at, what came out, and whether that is enough."""

    def against(case, peer, figure):
        runs = results.get(case, {})
        if OURS not in runs or peer not in runs:
            return None
        return ratio([figure(run) for run in runs[OURS]], [figure(run) for run in runs[peer]])

    def between(case, base, figure):
        if case not in results or base not in results:
            return None
        return ratio([figure(run) for run in results[case][OURS]], [figure(run) for run in results[base][OURS]])

    def worst(case, figure):
        return statistics.median(map(figure, results[case][OURS])) if case in results else None

    get4, get1 = "get numbers_10m, 4 clients", "get numbers_10m, 1 clients"
    put64, put1 = "put numbers_10m, batches of 65536", "put numbers_10m, batches of 1000"
    whole_http, whole_get = "a million rows by HTTP Arrow", "a million rows by Flight"
    yield "get, 4 clients, throughput × pyarrow", against(get4, "pyarrow", rate), 1.05, True
    yield "get, 4 clients, CPU per GB × pyarrow", against(get4, "pyarrow", cpu_per_gb), 1.0, False
    yield "get, 1 client, throughput × pyarrow", against(get1, "pyarrow", rate), 0.97, True
    yield "get, 1 client, throughput × duckdb", against(get1, "duckdb", rate), 3, True
    yield "get, 1 client, throughput × roapi", against(get1, "roapi", rate), 8, True
    yield "put, throughput × pyarrow", against(put64, "pyarrow", rate), 4, True
    yield "put in 1k batches, throughput × in 64k batches", between(put1, put64, rate), 0.5, True
    yield "tiny query, median × pyarrow", against("tiny query, 1 clients", "pyarrow", lambda run: run["p50_s"]), 1.0, False
    yield "first batch, part of the whole's time", worst(get1, lambda run: run["first_part"]), 0.03, False
    yield "peak memory above the table, 4 clients, MiB", worst(get4, lambda run: run["peak_bytes"] / MIB), 64, False
    yield "HTTP Arrow, speed × Flight", between(whole_http, whole_get, speed), 0.8, True


def page(whole, plots):
    machine = whole["machine"]
    rounds = max(len(runs) for case in whole["results"].values() for runs in case.values())
    yield "# Benchmarks"
    yield ""
    yield "Written by `bench/report.py` from one run of `bench/run.py` (`make bench`); not by hand, but for the notes on what"
    yield "stands in the way, which are `bench/notes.md`."
    yield ""
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; Python"
    yield f"{machine['python']}, pyarrow {machine['pyarrow']}; {whole['version']}, release build."
    yield f"Command: `run.py {whole['command']}`."
    yield ""
    yield f"Every figure is the median of {rounds} rounds (least–most), after one to warm up. In a round every case runs on"
    yield "every server; clients share the machine with the server. `× peer` is ours divided by theirs, the median of each"
    yield "round's ratio. A client is a process with pyarrow's C++ client. GB are 10⁹ bytes of Arrow memory."
    yield ""
    yield "`pyarrow` is Arrow's own C++ Flight server over tables in memory, without a query engine: the ceiling of the"
    yield "transport. `duckdb` is DuckDB behind that server. `roapi` is ROAPI, which takes Flight SQL only. `numbers` has"
    yield "32 bytes a row (int64, two float64, timestamp), `strings` has a symbol of six characters in place of the int64."
    yield ""
    yield "## Targets"
    yield ""
    yield "| | aim | measured | |"
    yield "|---|---|---|---|"
    for name, value, aim, more_is_better in targets(whole["results"]):
        if value is not None:
            met = value >= aim if more_is_better else value <= aim
            sign = "≥" if more_is_better else "≤"
            yield f"| {name} | {sign} {aim} | {number(value)} | {'met' if met else 'missed'} |"
    if "instructions_per_row" in whole:
        yield ""
        yield "## Instructions"
        yield ""
        yield "Counted by callgrind between table and messages, in process, for rows of 32 bytes in batches of 65,536; they"
        yield "repeat where seconds don't."
        yield ""
        yield "| | instructions per row |"
        yield "|---|---|"
        for verb, count in whole["instructions_per_row"].items():
            yield f"| {verb} | {number(count)} |"
    if "batches" in whole:
        yield ""
        yield "## In process"
        yield ""
        yield "Batches of 65,536 rows, by criterion (`cargo bench --bench batches`). What encodes without compression moves no"
        yield "values, so it goes faster than any memory: it is the time to write the messages' heads."
        yield ""
        yield "| | a second |"
        yield "|---|---|"
        for case in whole["batches"]:
            unit, name = (1e9, "GB") if case["unit"] == "Bytes" else (1e6, "million rows")
            yield f"| {case['name']} | {number(case['per_s'] / unit)} {name} |"
    notes = pathlib.Path(__file__).with_name("notes.md")
    if notes.exists():
        yield ""
        yield notes.read_text().strip()
    for title, prefix, figure, unit, more_is_better in FIGURES:
        if any(name.startswith(prefix) for name in whole["results"]):
            yield ""
            yield f"## {title}"
            yield ""
            yield f"{unit + '; ' if unit else ''}{'more' if more_is_better else 'less'} is better."
            if title in plots:
                yield ""
                yield f"![{title}]({plots[title]})"
            yield ""
            yield from table(whole["results"], prefix, figure, unit)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("page", type=pathlib.Path)
    arguments = parser.parse_args()
    whole = json.loads(arguments.results.read_text())
    folder = arguments.page.with_suffix("")
    folder.mkdir(exist_ok=True)
    plots = {}
    for title, name, figure in [
        ("Reading: throughput", "throughput", rate),
        ("Reading: CPU of the server", "cpu", cpu_per_gb),
    ]:
        path = folder / f"{name}.svg"
        plot(whole["results"], "get", figure, title, path)
        plots[title] = f"{folder.name}/{path.name}"
    arguments.page.write_text("\n".join(page(whole, plots)) + "\n")


if __name__ == "__main__":
    main()
