"""How a program ends: what goes wrong is told in one line, with an exit code that says whose fault it is."""

import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from creditflow.core.errors import UserError, one_line


class _Terminated(BaseException):
    """A scheduler wants the process to end. On the way out, files that are only half written are removed."""


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second signal would interrupt the cleaning up
    raise _Terminated


#: What the errors of Python, and of torch on a CPU and on a GPU, say about lack of memory.
_OUT_OF_MEMORY = re.compile(r"MemoryError|out of memory|can't allocate memory")


def run_program(main: Callable[[], None]) -> None:
    """Runs a program's `main` and ends the process.

    A UserError, lack of memory, or an OSError such as that of a full disk is told in one line, with exit code 2. The
    exit code is 130 after Ctrl-C and 143 after SIGTERM.
    """
    signal.signal(signal.SIGTERM, _terminate)
    _open_closed_streams()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _end(f"error: {error}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        _end(
            f"error: out of memory ({one_line(error)});"
            " give the job more memory, run fewer at once, or lower its batch_size",
            2,
        )
    except OSError as error:
        _end(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except KeyboardInterrupt as error:
        _end(str(error) or "interrupted; run the same command again to go on", 130)
    except _Terminated:
        _end("stopped by SIGTERM; run the same command again to go on", 143)
    # All files are closed. Python would now take torch apart, which costs half the time of loading it.
    os._exit(0)


def _open_closed_streams() -> None:
    """Opens the streams that the caller has closed, so that no file gets the number of one that libraries print to."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open to the end


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
