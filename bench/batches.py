"""Runs the criterion bench `batches` and adds its medians to what run.py measured."""

import argparse
import json
import pathlib
import shutil
import subprocess


def results(folder):
    """Name, unit and how many of it a second, of every case that criterion kept."""
    for path in sorted(folder.glob("*/*/new/benchmark.json")):
        case = json.loads(path.read_text())
        median_ns = json.loads(path.with_name("estimates.json").read_text())["median"]["point_estimate"]
        throughput = case["throughput"] or {}
        for unit, amount in throughput.items():
            yield {"name": case["full_id"], "unit": unit, "per_s": amount / (median_ns / 1e9)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path)
    arguments = parser.parse_args()
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    target = json.loads(subprocess.run(metadata, stdout=subprocess.PIPE, check=True).stdout)["target_directory"]
    # What is there may be of cases that are no more.
    shutil.rmtree(pathlib.Path(target) / "criterion", ignore_errors=True)
    subprocess.run(["cargo", "bench", "--bench", "batches", "--", "--noplot"], check=True)
    whole = json.loads(arguments.results.read_text())
    whole["batches"] = list(results(pathlib.Path(target) / "criterion"))
    arguments.results.write_text(json.dumps(whole, indent=1))


if __name__ == "__main__":
    main()
