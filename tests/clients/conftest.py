"""One real server for all client tests: the binary, on free ports, stopped by its own process id."""

import os
import re
import subprocess
from dataclasses import dataclass
from typing import NoReturn

import pyarrow.flight as fl
import pytest


@dataclass
class Server:
    process: subprocess.Popen
    flight: str
    http: str

    def connect(self) -> fl.FlightClient:
        return fl.connect(self.flight)

    def peak_bytes(self) -> int:
        """Most memory the server has held so far."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024


def start(*flags: str, ports: tuple[int, int] = (0, 0)) -> Server:
    binary = os.environ["ZEPTO_TEST_SERVER"]
    if not {"--backend", "--data-dir"} & set(flags):
        flags = ("--backend", "memory:", *flags)
    process = subprocess.Popen(
        [binary, "--flight-port", str(ports[0]), "--http-port", str(ports[1]), "--log-level", "error", *flags],
        stdout=subprocess.PIPE,
        text=True,
    )
    banner = ""
    for line in process.stdout:
        banner += line
        if "read_all" in line:
            break
    flight = re.search(r"grpc://\S+", banner).group(0).rstrip('")')
    http = re.search(r"http://\S+", banner).group(0)
    return Server(process, flight, http)


def stop(server: Server) -> None:
    server.process.terminate()
    assert server.process.wait(timeout=30) == 0


def without(program: str) -> NoReturn:
    """Skips a test for want of `program`; the gate, where it must be there, fails."""
    (pytest.fail if os.environ.get("ZEPTO_SKIP_NOTHING") else pytest.skip)(f"no {program}")


@pytest.fixture(scope="module")
def server():
    server = start("--ticks", "1000")
    yield server
    stop(server)


@pytest.fixture
def client(server):
    with server.connect() as client:
        yield client
