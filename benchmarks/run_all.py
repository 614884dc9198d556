"""Run the benchmarks, each several times, and write one table with medians, spread and limits.

    python benchmarks/run_all.py [--repeats N] [--only NAME ...] [--output FOLDER] [--page docs/measurements.md]

Each repetition runs in its own process. The table is written as performance.csv and performance.md. With --page, the
rows of each benchmark that ran also go into a table of this page. docs/measurements.md explains the rows.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import torch
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _page import put_tables

from creditflow.compute.provenance import cpu_model
from creditflow.core.files import write_atomically
from creditflow.stages.command_line import positive

HERE = Path(__file__).resolve().parent

#: Each script with its arguments. Where the defaults would take half an hour, the arguments ask for less.
BENCHMARKS = {
    "start_up": [],
    "training": ["--models", "resnet18", "--rounds", "3"],
    "attacks": [],
    "retrieval": [],
    "populations": [],
    "target_propagation": ["--rounds", "3"],
    "audit": ["--models", "lenet5", "--modes", "honest", "--images", "50"],
    "scale": [],
    "interval_coverage": ["--repeats", "300"],
}


def numbers(name: str) -> dict[str, float]:
    """Runs a benchmark and returns the numbers of its last line. Ends the process if the benchmark failed."""
    command = [sys.executable, str(HERE / f"{name}.py"), *BENCHMARKS[name]]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"error: {name} ended with {done.returncode}; its output is above")
    named: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return named


def limit(benchmark: str, name: str, limits: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Returns the first limit whose pattern fits the name of the number; an empty dict if none does."""
    patterns = limits.get(benchmark, {})
    return next((patterns[pattern] for pattern in patterns if fnmatch(name, pattern)), {})


def table(runs: dict[str, list[dict[str, float]]], limits: dict[str, dict[str, dict[str, float]]]) -> pd.DataFrame:
    """Returns a table with a row for each number of each benchmark."""
    rows = []
    for benchmark, repeats in runs.items():
        for name in repeats[0]:
            values = [repeat[name] for repeat in repeats]
            middle, bounds = statistics.median(values), limit(benchmark, name, limits)
            text = " ".join(f"{word.replace('_', ' ')} {value:g}" for word, value in bounds.items())
            within = bounds.get("least", middle) <= middle <= bounds.get("most", middle)
            row = {
                "benchmark": benchmark,
                "number": name,
                "median": middle,
                "least": min(values),
                "greatest": max(values),
            }
            rows.append(row | {"limit": text, "within": ("yes" if within else "no") if bounds else ""})
    return pd.DataFrame(rows)


def page_tables(frame: pd.DataFrame) -> dict[str, list[dict[str, str]]]:
    """Returns the tables of the page, one for each benchmark that ran. The last row of each says on what it ran."""
    date = datetime.now(UTC).date().isoformat()
    machine = f"{cpu_model()}, {os.cpu_count()} cores, PyTorch {torch.__version__}, {date}"
    tables = {}
    for benchmark, rows in frame.groupby("benchmark", sort=False):
        named = rows.drop(columns="benchmark")
        cells = [
            {str(name): value if isinstance(value, str) else f"{value:.3g}" for name, value in row.items()}
            for row in named.to_dict("records")
        ]
        last = dict.fromkeys(map(str, named.columns), "") | {"number": "measured on", "median": machine}
        tables[f"bench {benchmark}"] = [*cells, last]
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--output", type=Path, default=Path("results/bench"))
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="put the tables between their marks in this page")
    args = parser.parse_args()
    limits = yaml.safe_load((HERE / "limits.yaml").read_text(encoding="utf-8"))
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.only}
    for index in range(args.repeats):
        for name in args.only:
            print(f"--- {name}, {index + 1} of {args.repeats}", flush=True)
            runs[name].append(numbers(name))
            frame = table({benchmark: repeats for benchmark, repeats in runs.items() if repeats}, limits)
            write_atomically(args.output / "performance.csv", frame.to_csv(index=False).encode())
            write_atomically(
                args.output / "performance.md", (frame.to_markdown(index=False, floatfmt=".3g") + "\n").encode()
            )
    print((args.output / "performance.md").read_text(encoding="utf-8"))
    if args.page is not None:
        put_tables(args.page, page_tables(frame))


if __name__ == "__main__":
    main()
