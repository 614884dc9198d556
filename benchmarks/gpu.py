"""Checks and times the library on a machine with an NVIDIA GPU and PyTorch, without network and without Snakemake.

    make gpu-check [PYTHON=python3] [OPTIONS="--only checks"]
    python3 benchmarks/gpu.py [--only checks|speed|PART ...] [--output FOLDER] [--page docs/measurements.md]

What the library imports must be there; `make gpu-wheels` collects what commonly is not. There are two groups of parts:

checks  the tests of tests/gpu, by pytest: rules, attacks, populations, resuming, checks of gradients and audits on the
        GPU against the CPU, and two runs against each other
speed   `rules`: a training step of each feedback rule beside backpropagation, and BioTorch's frSF beside ours;
        `ways`: the same with channels last, in bfloat16, with any kernel, and compiled;
        `populations`, `attacks`, `targets`: many networks at once, 1,000 images, an epoch of target propagation

Each part has a process of its own and a bound of time; all take at most 20 minutes. gpu.json and gpu.md in the folder
of the results are written after every row. Parts that don't run keep the rows of an earlier run on the same card. Times
are medians of rounds, in which both sides of a ratio take turns. `--device cpu --small` tries everything out with tiny
sizes. The program ends with 1 if a row failed.
"""

import argparse
import gc
import importlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

#: Import name -> what it is for; without them there is nothing to do.
MODULES = ("torch", "torchvision", "numpy", "scipy", "pandas", "tabulate", "pydantic", "yaml", "safetensors", "pyarrow")
MODULES += ("foolbox", "eagerpy", "pyautoattack", "jinja2", "tqdm", "matplotlib")
CHECKS, SPEED = ("checks",), ("rules", "ways", "populations", "attacks", "targets")
#: Seconds that a part may take: less than nine minutes for the checks, and for all parts that measure speed.
LIMITS = {"machine": 60, "checks": 500, "rules": 100, "ways": 200, "populations": 90, "attacks": 60, "targets": 50}
#: Part -> module and function that runs it, and the function that makes a line of its table.
HOMES = {
    "checks": ("_gpu_checks", "checks", "checked"),
    "rules": ("_gpu_training", "rules", "steps"),
    "ways": ("_gpu_training", "ways", "steps"),
    "populations": ("_gpu_others", "many_networks", "populations"),
    "attacks": ("_gpu_others", "attacks", "attacks"),
    "targets": ("_gpu_others", "targets", "targets"),
}


def check_modules() -> None:
    """Ends the process with one line if something is not installed."""
    missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"error: not installed: {', '.join(missing)}; `make gpu-wheels` says how to carry packages")


def machine(options: Any, send: Any) -> None:
    """Sends what the tables say of the machine."""
    import torch
    from _gpu_run import measure

    from creditflow.compute.device import use_device
    from creditflow.compute.provenance import cpu_model

    def facts() -> dict[str, Any]:
        device = use_device(options.device, options.threads)
        on_gpu = device.type == "cuda"
        return {
            "processor": torch.cuda.get_device_name(device) if on_gpu else cpu_model(),
            "driver": driver() if on_gpu else "-",
            "Python": sys.version.split()[0],
            "PyTorch": torch.__version__,
            "CUDA": torch.version.cuda or "-",
            "cuDNN": str(torch.backends.cudnn.version()) if on_gpu else "-",
            "TF32 in float32": f"convolutions {word(torch.backends.cudnn.allow_tf32)},"
            f" products of matrices {word(torch.backends.cuda.matmul.allow_tf32)}"
            if on_gpu
            else "-",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }

    measure({"machine": facts}, send)


def word(flag: bool) -> str:
    return "yes" if flag else "no"


def driver() -> str:
    """Returns the version of NVIDIA's driver; "-" where nvidia-smi is missing."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "-"
    return done.stdout.strip().splitlines()[0]


class Results:
    """What is known so far: the facts of the machine, and for each part its rows."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "gpu.json"
        self.content: dict[str, Any] = {"machine": {}, "parts": {}}
        if self.path.exists():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))

    def begin(self, facts: dict[str, Any]) -> None:
        """Forgets the rows of another machine."""
        same = ("processor", "driver", "PyTorch", "sizes")
        if [self.content["machine"].get(name) for name in same] != [facts.get(name) for name in same]:
            self.content["parts"] = {}
        self.content["machine"] = facts

    def write(self) -> None:
        from creditflow.core.files import write_atomically, write_json

        write_json(self.path, self.content)
        texts = [f"## {name}\n\n{markdown(lines)}\n" for name, lines in self.tables().items()]
        write_atomically(self.path.with_suffix(".md"), "\n".join(texts).encode())

    def tables(self) -> dict[str, list[dict[str, str]]]:
        """Returns the lines of each table by its name."""
        import _gpu_tables

        facts = [{"": name, "machine": str(value)} for name, value in self.content["machine"].items()]
        tables = {"gpu machine": facts}
        for part, (_, _, cells) in HOMES.items():
            if part in self.content["parts"]:
                rows = self.content["parts"][part]["rows"]
                tables[f"gpu {part}"] = _gpu_tables.table(rows, getattr(_gpu_tables, cells))
        return tables

    def failures(self, parts: list[str]) -> list[str]:
        """Returns a line for each row of these parts that failed."""
        rows = [(part, row) for part in parts for row in self.content["parts"].get(part, {}).get("rows", [])]
        return [f"{part}, {row['name']}: {row['reason']}" for part, row in rows if row["status"] == "failed"]


def markdown(lines: list[dict[str, str]]) -> str:
    import pandas as pd

    text: str = pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)
    return text


def run(part: str, options: Any, results: Results) -> None:
    """Runs a part and writes its rows as they come."""
    from _gpu_run import run_part

    content = results.content["parts"][part] = {"rows": [], "seconds": 0.0}
    start = time.monotonic()

    def on_row(row: dict[str, Any]) -> None:
        content["rows"].append(row)
        content["seconds"] = round(time.monotonic() - start, 1)
        print(f"{part:12} {content['seconds']:6.1f} s  {described(row)}", flush=True)
        results.write()

    (options.output / f"{part}.log").unlink(missing_ok=True)
    module, function, _ = HOMES[part]
    for piece in getattr(importlib.import_module(module), "PIECES", ("",)):
        n_rows, left = len(content["rows"]), LIMITS[part] - (time.monotonic() - start)
        run_part(partial(_call, module, function), replace(options, piece=piece), max(0.0, left), on_row)
        if len(content["rows"]) == n_rows:
            on_row({"name": piece or "all of it", "status": "failed", "reason": "it gave no row"})


def _call(module: str, function: str, options: Any, send: Any) -> None:
    getattr(importlib.import_module(module), function)(options, send)


def described(row: dict[str, Any]) -> str:
    """Returns a row as one line."""
    if row["status"] != "measured":
        return f"{row['name']}: {row['status']}, {row['reason']}"
    values = (f"{name} {value:.4g}" for name, value in row["numbers"].items() if isinstance(value, int | float))
    return f"{row['name']}: {', '.join(values)}"


def facts_of(options: Any) -> dict[str, Any]:
    """Returns what the tables say of the machine. Ends the process with one line if the device does not exist."""
    from _gpu_run import run_part

    rows: list[dict[str, Any]] = []
    run_part(machine, options, LIMITS["machine"], rows.append)
    if rows[0]["status"] != "measured":
        sys.exit(f"error: {re.sub('^[A-Za-z]+: ', '', rows[0]['reason'])}")
    return {**rows[0]["numbers"], "sizes": "tiny, to try the program out" if options.small else "as described"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["checks", "speed", *SPEED]
    parts, where = f"parts or groups of them to run: {', '.join(names)}", "folder of the results (results/gpu)"
    parser.add_argument("--only", nargs="+", choices=names, default=["checks", "speed"], metavar="PART", help=parts)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program out")
    parser.add_argument("--small", action="store_true", help="tiny sizes, whose times say nothing")
    parser.add_argument("--rounds", type=int, help="how often each side of a ratio is timed (7; with --small 2)")
    parser.add_argument("--threads", type=int, default=2, help="number of CPU threads (2)")
    parser.add_argument("--output", type=Path, default=Path("results/gpu"), metavar="FOLDER", help=where)
    parser.add_argument("--page", type=Path, metavar="FILE.md", help="put the tables between their marks in this page")
    parser.add_argument("--no-run", action="store_true", help="run nothing; write the tables of gpu.json again")
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.small else 7)
    if args.rounds < 2 or args.threads < 1:
        parser.error("--rounds must be at least 2 and --threads at least 1")
    return args


def main() -> None:
    args = arguments()
    check_modules()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what it has started ends with it
    from _gpu_run import Options
    from _page import put_tables

    args.output.mkdir(parents=True, exist_ok=True)
    results = Results(args.output)
    parts = [part for part in HOMES if part in args.only or (part in SPEED and "speed" in args.only)]
    if not args.no_run:
        options = Options(args.device, args.small, args.threads, args.rounds, args.output)
        results.begin(facts_of(options))
        for module in {HOMES[part][0] for part in parts}:
            importlib.import_module(module)  # once for all processes, which are forks of this one
        gc.freeze()  # so that the rows' collections of garbage don't go through all that was imported
        for part in parts:
            run(part, options, results)
    results.write()
    if args.page is not None:
        put_tables(args.page, results.tables())
    print(f"written: {results.path} and {results.path.with_suffix('.md')}")
    if failures := results.failures(parts):
        sys.exit("\n".join(["", f"{len(failures)} failed:", *failures]))


if __name__ == "__main__":
    main()
