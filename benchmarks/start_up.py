"""The time of a short stage as a fork of a process that has loaded the libraries, and as a process of its own.

    python benchmarks/start_up.py [--rounds N]

The stage is `attack.py --help`: it loads what an attack needs, and then it ends. The two ways take turns in each round.
The ratio is the median over the rounds.

The last line is one JSON object {name: number}.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from creditflow.stages.command_line import positive
from creditflow.workflow import forkserver

ROOT = Path(__file__).resolve().parents[1]


def seconds(prefix: str) -> float:
    """Returns the time of `attack.py --help`, in seconds; `prefix` is put before the command."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    start = time.perf_counter()
    subprocess.run(
        ["bash", "-c", f"{prefix}python src/attack.py --help"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=5)
    args = parser.parse_args()
    prefix = forkserver.start(lambda name: f"src/{name}.py")
    if not prefix:
        sys.exit("error: the folder for temporary files takes no socket; set TMPDIR to another folder")
    for way in ("", prefix):  # a first run writes the byte code, and the server loads the libraries
        seconds(way)
    times = [(seconds(""), seconds(prefix)) for _ in range(args.rounds)]
    alone, forked = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"attack.py --help: {alone:.2f} s as a process of its own, {forked:.2f} s as a fork")
    ratio = statistics.median(process / fork for process, fork in times)
    print(json.dumps({"own_process_s": alone, "fork_s": forked, "own_process_over_fork": ratio}))


if __name__ == "__main__":
    main()
