"""What the benchmarks share."""

import argparse
import re
import time
from pathlib import Path

import torch

from creditflow.stages.command_line import positive


def peak_memory() -> float:
    """Returns the most memory in MiB that this process has held."""
    # Not getrusage: a process that was forked inherits its parent's.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def synchronised(device: torch.device) -> float:
    """Returns the time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def parser_of(description: str | None, *, rounds: int = 5, members: int | None = None) -> argparse.ArgumentParser:
    """Returns a parser with --rounds and --threads; with `members` also --members and --device."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=rounds)
    parser.add_argument("--threads", type=positive, default=2)
    if members is not None:
        parser.add_argument("--members", type=positive, default=members)
        parser.add_argument("--device", default="cpu")
    return parser
