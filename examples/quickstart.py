"""The first things to do with a running server: query, DataFrames, DoPut, ping.

Usage: python examples/quickstart.py [grpc://localhost:8815]
"""

import sys

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.flight as fl

url = sys.argv[1] if len(sys.argv) > 1 else "grpc://localhost:8815"
client = fl.connect(url)

print("# A query, as a DataFrame")
reader = client.do_get(fl.Ticket("SELECT * FROM trades LIMIT 10"))
df = reader.read_all().to_pandas()
print(df)

print("\n# The same bytes, as a Polars frame")
table = client.do_get(fl.Ticket("SELECT symbol, avg(price) AS price, count(*) AS ticks FROM trades GROUP BY symbol")).read_all()
print(pl.from_arrow(table).sort("symbol"))

print("\n# Schema and exact number of rows, before reading anything")
info = client.get_flight_info(fl.FlightDescriptor.for_command("SELECT * FROM trades WHERE price > 151"))
print(info.total_records, "rows of", info.schema.names)

print("\n# A DataFrame into the table; the missing timestamp is its arrival time")
df = pd.DataFrame({"symbol": [1, 2], "price": [150.25, 151.5], "volume": [100.0, 200.0]})
table = pa.Table.from_pandas(df)
writer, reader = client.do_put(fl.FlightDescriptor.for_path("trades"), table.schema)
writer.write_table(table)
writer.done_writing()
print(reader.read().to_pybytes().decode())
writer.close()

print("\n# Tables")
for flight in client.list_flights():
    print(flight.descriptor.path[0].decode(), flight.total_records, "rows")

print("\n# ping")
for result in client.do_action(fl.Action("ping", b"")):
    print(result.body.to_pybytes())
