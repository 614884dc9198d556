"""Run the benchmarks, each several times, and write one table: medians, spread, limits.

    python benchmarks/run_all.py [--repeats N] [--only NAME ...] [--output FOLDER]

Each repetition is a process of its own. Writes performance.csv and performance.md; docs/performance.md explains the rows.
"""

import argparse
import json
import statistics
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.core.files import write_atomically
from creditflow.stages.command_line import positive

HERE = Path(__file__).resolve().parent

#: Each script with what it is given here: less than its defaults where these take half an hour.
BENCHMARKS = {
    "start_up": [],
    "training": ["--models", "resnet18", "--rounds", "3"],
    "attacks": [],
    "retrieval": [],
    "populations": [],
    "target_propagation": ["--rounds", "3"],
    "scale": [],
}


def numbers(name: str) -> dict[str, float]:
    """Returns what a benchmark's last line says. Ends the process if it failed."""
    command = [sys.executable, str(HERE / f"{name}.py"), *BENCHMARKS[name]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(f"error: {name} ended with {done.returncode}; what it said is above")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def limit(benchmark: str, name: str, limits: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Returns the first limit whose pattern fits; nothing if none does."""
    return next((its for pattern, its in limits.get(benchmark, {}).items() if fnmatch(name, pattern)), {})


def table(runs: dict[str, list[dict[str, float]]], limits: dict[str, dict[str, dict[str, float]]]) -> pd.DataFrame:
    """Returns a row for each number of each benchmark."""
    rows = []
    for benchmark, repeats in runs.items():
        for name in repeats[0]:
            values = [one[name] for one in repeats]
            middle, its = statistics.median(values), limit(benchmark, name, limits)
            text = " ".join(f"{word.replace('_', ' ')} {value:g}" for word, value in its.items())
            within = its.get("least", middle) <= middle <= its.get("most", middle)
            row = {
                "benchmark": benchmark,
                "number": name,
                "median": middle,
                "least": min(values),
                "greatest": max(values),
            }
            rows.append(row | {"limit": text, "within": ("yes" if within else "no") if its else ""})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    parser.add_argument("--output", type=Path, default=Path("results/bench"))
    args = parser.parse_args()
    limits = yaml.safe_load((HERE / "limits.yaml").read_text())
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in args.only}
    for index in range(args.repeats):
        for name in args.only:
            print(f"--- {name}, {index + 1} of {args.repeats}", flush=True)
            runs[name].append(numbers(name))
            frame = table({one: its for one, its in runs.items() if its}, limits)
            write_atomically(args.output / "performance.csv", frame.to_csv(index=False).encode())
            write_atomically(
                args.output / "performance.md", (frame.to_markdown(index=False, floatfmt=".3g") + "\n").encode()
            )
    print((args.output / "performance.md").read_text())


if __name__ == "__main__":
    main()
