"""The peers that are a few lines of Python around somebody else's C++.

pyarrow: Arrow's own C++ Flight server over tables in memory. It runs no SQL: the ticket only names a table, so it is what
the transport can do at best. duckdb: DuckDB behind that same server, its results streamed from C++ to C++.
"""

import argparse
import re
import signal
import threading

import duckdb
import pyarrow
import pyarrow.flight as flight

import data

SELECT = re.compile(r'FROM\s+"?(\w+)"?(?:\s+LIMIT\s+(\d+))?', re.IGNORECASE)


class Pyarrow(flight.FlightServerBase):
    def __init__(self, location, folder):
        self.tables = {name: data.load(folder, name) for name in data.names()}
        self.batches = {}
        super().__init__(location)

    def do_get(self, context, ticket):
        name, limit = SELECT.search(ticket.ticket.decode()).groups()
        table = self.tables[name]
        return flight.RecordBatchStream(table.slice(0, int(limit)) if limit else table)

    def do_put(self, context, descriptor, reader, writer):
        self.batches[descriptor.path[0]] = [chunk.data for chunk in reader]

    def do_action(self, context, action):
        self.batches.clear()
        return []


class DuckDB(flight.FlightServerBase):
    def __init__(self, location, folder):
        self.connection = duckdb.connect()
        for name in data.names():
            self.connection.register("file", data.load(folder, name))
            self.connection.execute(f"CREATE TABLE {name} AS SELECT * FROM file")
            self.connection.unregister("file")
        super().__init__(location)

    def do_get(self, context, ticket):
        relation = self.connection.cursor().sql(ticket.ticket.decode())
        return flight.RecordBatchStream(relation.to_arrow_reader(data.BATCH_ROWS))

    def do_put(self, context, descriptor, reader, writer):
        cursor = self.connection.cursor()
        cursor.register("stream", reader.to_reader())
        cursor.execute(f"CREATE TABLE {descriptor.path[0]} AS SELECT * FROM stream")

    def do_action(self, context, action):
        for (name,) in self.connection.cursor().sql("SELECT table_name FROM duckdb_tables()").fetchall():
            if name.startswith("put"):
                self.connection.cursor().execute(f"DROP TABLE {name}")
        return []


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=["pyarrow", "duckdb"])
    parser.add_argument("folder")
    arguments = parser.parse_args()
    peer = {"pyarrow": Pyarrow, "duckdb": DuckDB}[arguments.peer]
    server = peer("grpc://127.0.0.1:0", arguments.folder)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"grpc://127.0.0.1:{server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
