"""Runs a part of `gpu.py` in a process of its own, within a bound of time, and hands its rows on as they come.

A row is a dict with `name`, `status` ("measured", "skipped" or "failed"), `numbers`, and the `reason` of the last two.
A process of its own keeps a broken CUDA context, a crash or a kill away from the other parts. It is a fork, since to
load PyTorch again would take seconds; so CUDA must not be used before.
"""

import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from creditflow.core.errors import one_line

Row = dict[str, Any]
#: Sends ("plan", names of all rows), ("row", a row) or ("error", a reason) to the process that writes the tables.
Send = Callable[[str, Any], None]


class SkippedError(Exception):
    """Something that cannot be measured on this machine; the text says why."""


@dataclass(frozen=True)
class Options:
    """What is measured on.

    Attributes:
        device: cuda, cuda:N or cpu.
        small: whether everything has a tiny size, to try the program out.
        threads: number of CPU threads.
        rounds: number of times that each side of a ratio is timed.
        output: the folder of the results.
        piece: which piece of a part runs, where a part has several.
    """

    device: str
    small: bool
    threads: int
    rounds: int
    output: Path
    piece: str = ""


Part = Callable[[Options, Send], None]


def measure(plan: Mapping[str, Callable[[], dict[str, Any]]], send: Send) -> None:
    """Makes each row of a plan {name: what returns its numbers}, and sends it. A row that fails ends nothing."""
    send("plan", list(plan))
    for name, numbers in plan.items():
        send("row", {"name": name, **outcome(numbers)})
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def outcome(numbers: Callable[[], dict[str, Any]]) -> Row:
    """Returns the numbers, or why there are none."""
    try:
        return {"status": "measured", "numbers": numbers()}
    except SkippedError as error:
        return {"status": "skipped", "reason": str(error)}
    except Exception as error:  # whatever a driver, a compiler or a library raises
        traceback.print_exc()
        return {"status": "failed", "reason": f"{type(error).__name__}: {one_line(error)[:300]}"}


@dataclass
class _Progress:
    """The rows that a part has announced and not yet sent, and why there will be no more."""

    waiting: list[str] = field(default_factory=list)
    reason: str = ""


def run_part(part: Part, options: Options, limit: float, on_row: Callable[[Row], None]) -> None:
    """Runs a part for at most `limit` seconds and calls `on_row` with each row.

    Rows that were announced and never came are failed rows: their reason is the time, or how the process ended.
    """
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(part, options, reader, writer))
    process.start()
    writer.close()
    try:
        progress = _followed(reader, limit, on_row)
        process.join(timeout=0 if progress.reason else 10)
    finally:
        _end(process)
    if not progress.reason and process.exitcode:
        progress.reason = f"the process ended with status {process.exitcode}"
    for index, name in enumerate(progress.waiting):
        reason = progress.reason or "the part ended without it"
        on_row({"name": name, "status": "failed", "reason": reason if index == 0 else f"not reached: {reason}"})
    if progress.reason and not progress.waiting:
        on_row({"name": "all of it", "status": "failed", "reason": progress.reason})


def _followed(reader: Connection, limit: float, on_row: Callable[[Row], None]) -> _Progress:
    progress, deadline = _Progress(), time.monotonic() + limit
    while reader.poll(max(0.0, deadline - time.monotonic())):
        try:
            kind, value = reader.recv()
        except EOFError:
            return progress
        if kind == "plan":
            progress.waiting = value
        elif kind == "error":
            progress.reason = value
        else:
            progress.waiting = [name for name in progress.waiting if name != value["name"]]
            on_row(value)
    progress.reason = f"it was stopped after {limit:.3g} s"
    return progress


def _end(process: Any) -> None:
    """Ends the process and all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.is_alive():
        process.kill()
    process.join()


def _child(part: Part, options: Options, reader: Connection, writer: Connection) -> None:
    reader.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.setsid()  # so that whatever it starts can be ended with it
    torch.set_num_threads(options.threads)

    def send(kind: str, value: Any) -> None:
        writer.send((kind, value))

    try:
        part(options, send)
    except BaseException as error:
        traceback.print_exc()
        send("error", f"{type(error).__name__}: {one_line(error)[:300]}")
    finally:
        writer.close()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # without taking torch and CUDA apart
