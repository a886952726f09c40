"""Bars, a moving average and the prevailing quotes of a random walk, and a picture of them.

bars.py [--uri grpc://localhost:8815] [--http http://localhost:8123] [--picture bars.svg]: the picture needs matplotlib.
"""

import argparse
import urllib.request

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.flight as fl


def walk(rows=20_000, seed=7):
    """Trades, and quotes around their prices, of one morning."""
    draw = np.random.default_rng(seed)
    times = pd.Timestamp("2026-01-05T09:30:00") + pd.to_timedelta(np.sort(draw.integers(0, 3_600_000, rows)), unit="ms")
    price = 100 * np.exp(np.cumsum(draw.normal(0, 2e-4, rows)))
    trades = pd.DataFrame({"timestamp": times, "symbol": "ACME", "price": price.round(2), "volume": draw.integers(1, 500, rows)})
    spread = draw.gamma(2, 0.01, rows)
    quotes = pd.DataFrame({"timestamp": times - pd.Timedelta("1ms"), "symbol": "ACME", "bid": price - spread, "ask": price + spread})
    return trades, quotes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uri", default="grpc://localhost:8815")
    parser.add_argument("--http", default="http://localhost:8123")
    parser.add_argument("--picture")
    arguments = parser.parse_args()
    client = fl.connect(arguments.uri)

    def put(name, frame):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        writer, _ = client.do_put(fl.FlightDescriptor.for_path(name), table.schema)
        writer.write_table(table)
        writer.close()

    def frame(sql):
        return client.do_get(fl.Ticket(sql)).read_all().to_pandas()

    for name, rows in zip(("walk_trades", "walk_quotes"), walk()):
        urllib.request.urlopen(arguments.http, data=f"DROP TABLE IF EXISTS {name}".encode()).read()
        put(name, rows)
    bars = frame("""SELECT xbar(timestamp, INTERVAL '1 minute') AS bar, first(price) AS open, max(price) AS high, min(price) AS low,
        last(price) AS close, sum(volume) AS volume FROM walk_trades GROUP BY bar ORDER BY bar""")
    ema = frame("SELECT timestamp, ema(price, 500) OVER (PARTITION BY symbol ORDER BY timestamp) AS ema FROM walk_trades ORDER BY timestamp")
    cost = frame("""SELECT xbar(t.timestamp, INTERVAL '1 minute') AS bar, avg(q.ask - q.bid) AS spread
        FROM walk_trades t ASOF JOIN walk_quotes q ON t.symbol = q.symbol AND t.timestamp >= q.timestamp GROUP BY bar ORDER BY bar""")
    print(bars.tail(3).to_string(index=False))
    print(f"{len(ema)} averages, spread {cost['spread'].mean():.4f}")
    if arguments.picture:
        draw(bars, ema, cost, arguments.picture)


def draw(bars, ema, cost, path):
    """Draws candles with the average over them, and the spread below."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, (top, below) = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True, height_ratios=[3, 1], layout="constrained")
    color = np.where(bars["close"] >= bars["open"], "#2a9d8f", "#e76f51")
    middle = bars["bar"] + pd.Timedelta("30s")
    top.vlines(middle, bars["low"], bars["high"], color=color, linewidth=0.8)
    top.bar(middle, bars["close"] - bars["open"], bottom=bars["open"], width=pd.Timedelta("40s"), color=color)
    top.plot(ema["timestamp"][::20], ema["ema"][::20], color="#264653", linewidth=1.2, label="EMA over 500 trades")
    top.legend(frameon=False, loc="upper left")
    top.set_ylabel("price")
    below.bar(cost["bar"] + pd.Timedelta("30s"), cost["spread"], width=pd.Timedelta("40s"), color="#8d99ae")
    below.set_ylabel("spread")
    below.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M"))
    for axes in (top, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None} if path.endswith("svg") else None)


if __name__ == "__main__":
    main()
