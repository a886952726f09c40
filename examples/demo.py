"""Starts a server on free ports, runs quickstart.py against it, shows both, stops the server.

Usage: python examples/demo.py path/to/zepto_flight_server
"""

import pathlib
import re
import subprocess
import sys

server = subprocess.Popen(
    [sys.argv[1], "--flight-port", "0", "--http-port", "0", "--backend", "memory:", "--ticks", "1000", "--log-level", "warn"],
    stdout=subprocess.PIPE,
    text=True,
)
try:
    banner = ""
    for line in server.stdout:
        banner += line
        if "read_all" in line:
            break
    print(banner)
    url = re.search(r"grpc://[^\s\"]+", banner).group(0)
    quickstart = pathlib.Path(__file__).with_name("quickstart.py")
    code = subprocess.run([sys.executable, quickstart, url]).returncode
finally:
    server.terminate()
    server.wait(timeout=30)
sys.exit(code)
