"""The server does what its OpenAPI document says: schemathesis makes requests of it, good ones and bad ones."""

import pathlib
import subprocess
import sys

#: What a schema cannot say is which text is SQL, so good requests by the schema may well be refused; and bodies that
#: schemathesis cannot make are tested elsewhere.
OPTIONS = [
    "--exclude-checks=positive_data_acceptance",
    "--exclude-path-regex=/insert/(arrow|msgpack|ndjson|parquet)|/exchange",
    "--max-examples=30",
    "--seed=1",
    "--request-timeout=20",
]


def test_the_document_and_the_server_agree(server):
    command = [pathlib.Path(sys.executable).with_name("schemathesis"), "run", f"{server.http}/openapi.json", *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
