"""Ctrl-C in a run: whether it came, and the one sentence that the run then ends with."""

import signal
import sys
import threading
import time
from types import TracebackType
from typing import Any

#: What is said at the end of a run that Ctrl-C has stopped. The jobs that it ended are not told as failures.
SENTENCE = (
    "stopped by Ctrl-C; nothing is lost: finished jobs stay, and trainings go on from their last epoch."
    " Run the same command again to go on"
)

#: Seconds after the first Ctrl-C in which others are ignored, as they would interrupt Snakemake's tidying up.
_TIDYING_S = 3.0

_came = threading.Event()


def note() -> None:
    """Has this process remember the next Ctrl-C. What happens then stays as it is: Snakemake ends its jobs."""
    _came.clear()
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        return  # Snakemake is used as a library, or something has this process ignore Ctrl-C, such as nohup

    first = float("-inf")

    def remember(number: int, frame: Any) -> None:
        nonlocal first
        if time.monotonic() - first < _TIDYING_S:
            return
        first = time.monotonic()
        _came.set()
        handler(number, frame)

    signal.signal(signal.SIGINT, remember)
    sys.excepthook = _show


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Shows an uncaught exception, but not what comes of a second Ctrl-C while Snakemake tidies up after the first."""
    if not (_came.is_set() and issubclass(kind, KeyboardInterrupt)):
        sys.__excepthook__(kind, error, trace)


def came() -> bool:
    """Returns whether Ctrl-C has come since `note`."""
    return _came.is_set()
