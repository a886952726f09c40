"""Clients, each a process of its own, so that none waits for another's interpreter. All of them are pyarrow's C++ client."""

import http.client
import json
import multiprocessing
import statistics
import time
import urllib.parse

import pyarrow
import pyarrow.flight as flight

import data
import servers

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def field(number, value):
    """One length-delimited field of a protobuf message."""
    length, size = b"", len(value)
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + value


def flight_sql(sql):
    """A CommandStatementQuery."""
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return field(1, url) + field(2, field(1, sql.encode()))


class Worker:
    """What a client process does."""

    def __init__(self):
        self.connections = {}
        self.tables = {}

    def client(self, uri):
        if uri not in self.connections:
            self.connections[uri] = flight.connect(uri, generic_options=UNLIMITED)
        return self.connections[uri]

    def ticket(self, uri, sql, as_flight_sql):
        if not as_flight_sql:
            return flight.Ticket(sql)
        descriptor = flight.FlightDescriptor.for_command(flight_sql(sql))
        return self.client(uri).get_flight_info(descriptor).endpoints[0].ticket

    def get(self, uri, sql, as_flight_sql):
        """Drains a result: rows, bytes, and seconds to the first batch."""
        began = time.monotonic()
        reader = self.client(uri).do_get(self.ticket(uri, sql, as_flight_sql))
        rows = size = 0
        first = None
        for chunk in reader:
            first = first or time.monotonic() - began
            rows += chunk.data.num_rows
            size += chunk.data.nbytes
        return {"rows": rows, "bytes": size, "first_s": first}

    def many(self, uri, sql, as_flight_sql, count):
        """Asks the same small thing `count` times: each time's seconds."""
        client = self.client(uri)
        seconds = []
        for _ in range(count):
            began = time.monotonic()
            rows = client.do_get(self.ticket(uri, sql, as_flight_sql)).read_all().num_rows
            seconds.append(time.monotonic() - began)
            assert rows == 10, rows
        return {"rows": 10 * count, "bytes": 0, "seconds": seconds}

    def put(self, uri, name, folder, source, batch_rows):
        if source not in self.tables:
            self.tables = {source: data.load(folder, source)}
        return {"rows": self.tables[source].num_rows, "bytes": self.tables[source].nbytes} | {
            "began": time.monotonic(),
            "done": servers.put(self.client(uri), name, self.tables[source], batch_rows),
            "ended": time.monotonic(),
        }

    def ways(self, uri, url, sql, way, count):
        """Reads a result `count` times over a connection that is there already: each time's seconds."""
        read = {"Flight": self.by_flight, "HTTP Arrow": self.by_http_arrow, "HTTP JSON": self.by_http_json}[way]
        # A server closes a connection that nobody used since the last round.
        self.connections.pop(url, None)
        read(uri, url, "SELECT 1")
        seconds = []
        for _ in range(count):
            began = time.monotonic()
            rows = read(uri, url, sql)
            seconds.append(time.monotonic() - began)
        return {"rows": rows, "bytes": 0, "seconds": seconds}

    def by_flight(self, uri, url, sql):
        return self.client(uri).do_get(flight.Ticket(sql)).read_all().num_rows

    def by_http_arrow(self, uri, url, sql):
        reply = self.post(url, sql, "application/vnd.apache.arrow.stream")
        rows = pyarrow.ipc.open_stream(reply).read_all().num_rows
        reply.read()
        return rows

    def by_http_json(self, uri, url, sql):
        return len(json.load(self.post(url, sql, "application/json"))["data"])

    def post(self, url, sql, accept):
        if url not in self.connections:
            place = urllib.parse.urlsplit(url)
            self.connections[url] = http.client.HTTPConnection(place.hostname, place.port)
        self.connections[url].request("POST", "/", sql, {"Accept": accept})
        return self.connections[url].getresponse()


def serve(pipe):
    worker = Worker()
    while (task := pipe.recv()) is not None:
        verb, arguments = task
        try:
            began = time.monotonic()
            result = getattr(worker, verb)(*arguments)
            pipe.send({"began": began, "ended": time.monotonic(), **result})
        except Exception as error:  # whatever it was, the parent says where
            pipe.send({"error": f"{type(error).__name__}: {error}"})


class Clients:
    """Client processes that wait for work."""

    def __init__(self, count):
        context = multiprocessing.get_context("spawn")
        self.pipes = []
        for _ in range(count):
            pipe, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs,), daemon=True).start()
            self.pipes.append(pipe)

    def run(self, count, verb, *arguments):
        """Has `count` of them do the same at once: what they say, and seconds from the first start to the last end."""
        for pipe in self.pipes[:count]:
            pipe.send((verb, arguments))
        results = [pipe.recv() for pipe in self.pipes[:count]]
        for result in results:
            if "error" in result:
                raise RuntimeError(result["error"])
        wall_s = max(result["ended"] for result in results) - min(result["began"] for result in results)
        return results, wall_s

    def close(self):
        for pipe in self.pipes:
            pipe.send(None)


def percentile(values, part):
    return statistics.quantiles(values, n=1000, method="inclusive")[round(part * 1000) - 1]
