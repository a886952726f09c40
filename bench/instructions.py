"""Counts the instructions per row of DoGet, DoPut and of splitting into 64 KiB with callgrind, and adds them to what run.py measured."""

import argparse
import json
import pathlib
import re
import subprocess

ROWS = 16 * 65_536
FEW, MANY = 2, 12


def built():
    """The bench `instructions`, built."""
    command = ["cargo", "bench", "--no-run", "--bench", "instructions", "--message-format", "json"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    messages = (json.loads(line) for line in lines)
    return next(
        message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "instructions"
    )


def count(binary, verb, rounds):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", binary, verb, str(rounds)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return int(re.search(r"Collected : (\d+)", output)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path)
    arguments = parser.parse_args()
    whole = json.loads(arguments.results.read_text())
    binary = built()
    whole["instructions_per_row"] = {
        verb: (count(binary, verb, MANY) - count(binary, verb, FEW)) / ((MANY - FEW) * ROWS)
        for verb in ("get", "put", "split")
    }
    arguments.results.write_text(json.dumps(whole, indent=1))
    print(whole["instructions_per_row"])


if __name__ == "__main__":
    main()
