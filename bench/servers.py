"""Starts, fills, watches and stops the servers under test. All of them listen on 127.0.0.1."""

import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pyarrow.flight as flight

import data

HERE = pathlib.Path(__file__).parent


class Server:
    """A running server: where it is, and what it costs."""

    #: Whether it takes SQL only as Flight SQL, in GetFlightInfo.
    flight_sql = False
    #: Whether it takes DoPut.
    takes_put = True
    http = None

    def __init__(self, command, **options):
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)

    @property
    def pid(self):
        return self.process.pid

    def cpu_s(self):
        """CPU seconds of the process so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self, what):
        """VmRSS: now. VmHWM: the most since `reset_peak`."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) * 1024

    def reset_peak(self):
        pathlib.Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def forget_puts(self):
        """Drops what DoPut made."""
        list(flight.connect(self.uri).do_action(flight.Action("forget", b" ")))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Empty(Server):
    """Ours, without a table."""

    name = "zepto-flight"

    def __init__(self, binary):
        command = [binary, "--flight-port", "0", "--http-port", "0", "--backend", "memory:", "--log-level", "warn"]
        super().__init__(command)
        for line in self.process.stdout:
            if found := re.search(r"(grpc|http)://[\d.]+:\d+", line):
                if found[1] == "grpc":
                    self.uri = self.__dict__.get("uri", found[0])
                else:
                    self.http = found[0]
            if line.strip().startswith("data:"):
                break


class Zepto(Empty):
    """Ours, with the tables of the benchmarks."""

    def __init__(self, binary, folder):
        super().__init__(binary)
        client = flight.connect(self.uri)
        for name in data.names():
            put(client, name, data.load(folder, name), data.BATCH_ROWS)

    def forget_puts(self):
        client = flight.connect(self.uri)
        for info in client.list_flights():
            name = info.descriptor.path[0].decode()
            if name.startswith("put"):
                urllib.request.urlopen(self.http, f"DROP TABLE {name}".encode()).read()


class Peer(Server):
    def __init__(self, name, folder):
        self.name = name
        super().__init__([sys.executable, HERE / "peers.py", name, folder])
        self.uri = self.process.stdout.readline().strip()


class Roapi(Server):
    name = "roapi"
    flight_sql = True
    takes_put = False

    def __init__(self, folder):
        ports = [free_port() for _ in range(3)]
        tables = [f"-t={name}={folder}/{name}.parquet" for name in data.names()]
        command = [pathlib.Path(sys.executable).parent / "roapi", *tables]
        command += [f"-a=127.0.0.1:{ports[0]}", f"-p=127.0.0.1:{ports[1]}", f"--addr-flight-sql=127.0.0.1:{ports[2]}"]
        super().__init__(command, env={**os.environ, "RUST_LOG": "error"})
        self.uri = f"grpc://127.0.0.1:{ports[2]}"
        wait_for(ports[2])


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


def put(client, name, table, batch_rows):
    """Sends a table by DoPut, and waits until the server has all of it."""
    writer, answers = client.do_put(flight.FlightDescriptor.for_path(name), table.schema)
    for batch in table.to_batches(max_chunksize=batch_rows):
        writer.write_batch(batch)
    writer.done_writing()
    try:
        while answers.read() is not None:
            pass
    except StopIteration:
        pass
    writer.close()
