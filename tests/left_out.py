"""A build without a protocol starts, names the stub that stands in, and serves the rest. Run by `make test`."""

import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
STUB = "stub (left out of this build)"


def banner(server):
    """What the server prints up to the line on where its data lives."""
    lines = []
    for line in server.stdout:
        lines.append(line)
        if line.strip().startswith("data:"):
            break
    return "".join(lines)


def fetch(url, body=None):
    with urllib.request.urlopen(url, body, timeout=20) as reply:
        return json.load(reply)


def check(features, stubs):
    subprocess.run(["cargo", "build", "--no-default-features", "--features", features], cwd=ROOT, check=True)
    command = [TARGET / "debug" / "zepto_flight_server", "--flight-port", "0", "--http-port", "0", "--backend", "memory:", "--ticks", "10"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            text = banner(server)
            for protocol in ("flight", "http"):
                line = next(line for line in text.splitlines() if line.strip().startswith(f"{protocol}:"))
                assert (STUB in line) == (protocol in stubs), line
            if "http" not in stubs:
                url = re.search(r"http://[0-9.:]+", text)[0]
                assert STUB in json.dumps(fetch(f"{url}/health"))
                assert fetch(url, b"SELECT count(*) FROM trades")["data"] == [[10]]
        finally:
            server.terminate()
        assert server.wait(20) == 0, "the server did not stop in good order"
    print(f"features [{features}]: as it should be", flush=True)


def main():
    check("http", {"flight"})
    check("flight", {"http"})
    check("", {"flight", "http"})


if __name__ == "__main__":
    sys.exit(main())
