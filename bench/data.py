"""The tables that every server serves: made from a fixed seed, kept as Arrow and Parquet files."""

import pathlib

import numpy
import pyarrow
import pyarrow.parquet

SIZES = {"1m": 1_000_000, "10m": 10_000_000}
BATCH_ROWS = 65_536


def trades(rows, strings):
    """`rows` trades of 32 bytes each, or with symbols as strings of six characters."""
    random = numpy.random.default_rng(42)
    symbols = random.integers(0, 100, rows)
    names = pyarrow.array([f"SYM{number:03d}" for number in range(100)])
    symbol = names.take(pyarrow.array(symbols)) if strings else pyarrow.array(symbols)
    step_ns = 23_400 * 1_000_000_000 // rows
    timestamp = 1_704_187_800_000_000_000 + numpy.arange(rows) * step_ns
    return pyarrow.table(
        {
            "symbol": symbol,
            "price": numpy.round(random.normal(150, 20, rows), 2),
            "volume": random.integers(1, 1_000, rows).astype("float64"),
            "timestamp": pyarrow.array(timestamp).view(pyarrow.timestamp("ns")),
        }
    )


def names():
    return [f"{kind}_{size}" for kind in ("numbers", "strings") for size in SIZES]


def make(folder):
    """Writes whatever is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names():
        kind, size = name.split("_")
        path = folder / f"{name}.arrow"
        if not path.exists():
            table = trades(SIZES[size], kind == "strings")
            with pyarrow.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table, max_chunksize=BATCH_ROWS)
            pyarrow.parquet.write_table(table, folder / f"{name}.parquet", compression="none")


def load(folder, name):
    """A table in memory, in batches of `BATCH_ROWS`."""
    with pyarrow.OSFile(str(pathlib.Path(folder) / f"{name}.arrow")) as file:
        return pyarrow.ipc.open_file(file).read_all()
