"""A Spark 4 data source over Flight: each endpoint of a query is a partition, read by an executor as Arrow batches.

    spark.dataSource.register(ZeptoSource)
    trades = spark.read.format("zepto").option("url", "grpc://localhost:8815").option("query", "SELECT * FROM trades").load()
    trades.write.format("zepto").option("url", "grpc://localhost:8815").option("table", "copy").mode("append").save()

Options: `url`; `query` or `table`; `partitions` (8). All partitions read one pinned state. Tickets carry what they need, so an
executor elsewhere may read one, and read it again. Spark's timestamps are microseconds, so that is what it asks for. A
partition that is written is one stream: all of it or nothing. Spark may run a task twice, and then it is twice.
"""

import pyarrow.flight as fl
from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.pandas.types import from_arrow_schema

#: Spark knows neither dictionaries, nor views, nor nanoseconds.
PLAIN = [(b"x-zepto-string-encoding", b"plain"), (b"x-zepto-timestamp-unit", b"us")]


class Part(InputPartition):
    def __init__(self, url, ticket):
        super().__init__(ticket)
        self.url, self.ticket = url, ticket


class ZeptoSource(DataSource):
    @classmethod
    def name(cls):
        return "zepto"

    def info(self):
        """What the query will answer, and the tickets of its parts."""
        url, count = self.options["url"], self.options.get("partitions", "8")
        command = self.options.get("query") or f'SELECT * FROM "{self.options["table"]}"'
        headers = [*PLAIN, (b"x-zepto-endpoints", count.encode())]
        with fl.connect(url) as client:
            return client.get_flight_info(fl.FlightDescriptor.for_command(command), fl.FlightCallOptions(headers=headers))

    def schema(self):
        return from_arrow_schema(self.info().schema)

    def reader(self, schema):
        return ZeptoReader(self.options["url"], self.info())

    def writer(self, schema, overwrite):
        if overwrite:
            raise ValueError("the zepto source appends; drop or truncate the table to begin anew")
        return ZeptoWriter(self.options["url"], self.options["table"])


class ZeptoReader(DataSourceReader):
    def __init__(self, url, info):
        self.url, self.tickets = url, [endpoint.ticket.ticket for endpoint in info.endpoints]

    def partitions(self):
        return [Part(self.url, ticket) for ticket in self.tickets]

    def read(self, part):
        with fl.connect(part.url) as client:
            for chunk in client.do_get(fl.Ticket(part.ticket)):
                yield chunk.data


class ZeptoWriter(DataSourceArrowWriter):
    def __init__(self, url, table):
        self.url, self.table = url, table

    def write(self, batches):
        writer = None
        with fl.connect(self.url) as client:
            for batch in batches:
                if writer is None:
                    writer, _ = client.do_put(fl.FlightDescriptor.for_path(self.table), batch.schema)
                writer.write_batch(batch)
            if writer is not None:
                writer.close()
        return WriterCommitMessage()
