"""Core-seconds of the `quick` experiment, now and at another commit.

    python benchmarks/demo.py [--before COMMIT] [--rounds N] [--cores N]

Each commit is cloned into an empty folder, and all of `quick` runs there with this Python: every job, from the data to
the figures, is computed. The commits take turns in each round. The processor's seconds of the whole workflow are
compared, and beside them its duration; the ratio is the median over the rounds.

The last line is one JSON object {name: number}.
"""

import argparse
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.stages.command_line import positive

ROOT = Path(__file__).resolve().parents[1]


def cost(commit: str, cores: int) -> tuple[float, float]:
    """Returns the processor's seconds and the duration in seconds of `quick` at a commit. Ends if `quick` fails."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=folder, check=True)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        before, start = used(), time.perf_counter()
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), "--quiet", "all", "--", "quick"]
        done = subprocess.run(command, cwd=folder, env=environment, check=False)
        if done.returncode:
            sys.exit(f"error: quick at {commit} ended with {done.returncode}; what it said is above")
        return used() - before, time.perf_counter() - start


def adopt_orphans() -> None:
    """Makes this process the parent of what its children leave behind, as the server that forks jobs does."""
    set_child_subreaper = 36
    if ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0):
        sys.exit(f"error: orphans cannot be counted: {os.strerror(ctypes.get_errno())}")


def used() -> float:
    """Waits for all processes that this one has started, also through others; returns their processor's seconds."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            break
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", default="e1c59e9", help="the commit to compare with")
    parser.add_argument("--rounds", type=positive, default=1)
    parser.add_argument("--cores", type=positive, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    adopt_orphans()
    commits = {"before": args.before, "now": "HEAD"}
    rounds = [{name: cost(commit, args.cores) for name, commit in commits.items()} for _ in range(args.rounds)]
    numbers = {}
    for name, commit in commits.items():
        for place, unit in enumerate(("core_s", "wall_s")):
            numbers[f"{name}_{unit}"] = statistics.median(costs[name][place] for costs in rounds)
        print(f"{commit}: {numbers[f'{name}_core_s']:.0f} core-seconds, {numbers[f'{name}_wall_s']:.0f} s")
    for place, unit in enumerate(("core", "wall")):
        ratio = statistics.median(costs["now"][place] / costs["before"][place] for costs in rounds)
        numbers[f"now_over_before_{unit}"] = ratio
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
