"""What the benchmarks have in common: options, time and memory."""

import argparse
import re
import time
from pathlib import Path

import torch

from creditflow.stages.command_line import positive


def peak_memory() -> float:
    """Returns the peak of the memory of this process, in MiB."""
    # getrusage would not do: a forked process inherits the peak of its parent.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert peak is not None
    return int(peak.group(1)) / 1024


def synchronised(device: torch.device) -> float:
    """Waits until the device has done all that it was given, and returns the time in seconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def parser_of(description: str | None, *, rounds: int = 5, members: int | None = None) -> argparse.ArgumentParser:
    """Returns a parser with the options --rounds and --threads, and with --members and --device if `members` is given.

    `rounds` and `members` are the defaults of the options.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=positive, default=rounds)
    parser.add_argument("--threads", type=positive, default=2)
    if members is not None:
        parser.add_argument("--members", type=positive, default=members)
        parser.add_argument("--device", default="cpu")
    return parser
