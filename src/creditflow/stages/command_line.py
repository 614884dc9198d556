"""What all stage scripts share: their common options, and how they end when something goes wrong."""

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from creditflow.core.errors import UserError, one_line


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Ends in one line, without the usage: it would bury the line in a workflow's log."""
        self.exit(2, f"error: {message}; `python {self.prog} --help` lists all options\n")


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help shows the script's own docstring."""
    return _Parser(prog=sys.argv[0], description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)


def add_compute_options(parser: argparse.ArgumentParser, *, seed: bool = True) -> None:
    """Adds --device, --threads and, for stages with one seed, --seed."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=positive, default=1, help="CPU threads; results may depend on it in the last bits"
    )
    if seed:
        parser.add_argument("--seed", type=natural, default=0, help="every random number of the job derives from it")


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Adds what names an experiment and where its records are."""
    parser.add_argument("--experiment", required=True, help="name of a file in the experiments folder")
    parser.add_argument(
        "--experiments", type=existing_file, default=Path("config/experiments"), help="folder of experiments"
    )
    parser.add_argument("--schema", type=existing_file, default=Path("config/schema.yaml"), help="their schema")
    parser.add_argument(
        "--results", type=existing_file, default=Path("results"), help="folder that holds the experiment's records"
    )


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    return _at_least(text, 1)


def natural(text: str) -> int:
    """argparse type: an integer of at least 0."""
    return _at_least(text, 0)


def _at_least(text: str, minimum: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = minimum - 1
    if number < minimum:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {minimum}")
    return number


def epsilon(text: str) -> float:
    """argparse type: a perturbation size, finite and not negative."""
    return _number(text, lambda number: 0 <= number < float("inf"), "a perturbation size (a finite number >= 0)")


def positive_number(text: str) -> float:
    """argparse type: a finite number above 0."""
    return _number(text, lambda number: 0 < number < float("inf"), "a finite number above 0")


def share(text: str) -> float:
    """argparse type: a share, from 0 to 1."""
    return _number(text, lambda number: 0 <= number <= 1, "a share (0 to 1)")


def _number(text: str, fits: Callable[[float], bool], what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not fits(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def json_object(text: str) -> dict[str, Any]:
    """argparse type: a JSON object such as {"steps": 5}."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON ({error.msg})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{name} is not a finite number")


def existing_file(text: str) -> Path:
    """argparse type: a file or folder that exists."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


class _Terminated(BaseException):
    """A scheduler wants the process to end; what is being written is taken back on the way out."""


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would cut the ending short
    raise _Terminated


#: What Python, and torch on a CPU and a GPU, say of it.
_OUT_OF_MEMORY = re.compile(r"MemoryError|out of memory|can't allocate memory")


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage and ends the process.

    A UserError, lack of memory or an OSError such as a full disk ends in one line and exit code 2, Ctrl-C in 130, SIGTERM in 143.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        main()
    except UserError as error:
        _end(f"error: {error}", 2)
    except (MemoryError, RuntimeError) as error:
        if not _OUT_OF_MEMORY.search(f"{type(error).__name__} {error}"):
            raise
        _end(
            f"error: out of memory ({one_line(error)}); give the job more memory, run fewer at once, or lower its batch_size",
            2,
        )
    except OSError as error:
        _end(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2)
    except KeyboardInterrupt:
        _end("interrupted; run the same command again to go on", 130)
    except _Terminated:
        _end("stopped by SIGTERM; run the same command again to go on", 143)
    # All files are closed; taking torch apart would cost as long as loading half of it.
    sys.stdout.flush()
    os._exit(0)


def _end(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
