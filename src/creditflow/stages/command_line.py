"""What all stage scripts share: common options, types of arguments, and how a stage ends if something goes wrong."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import as_path
from creditflow.core.gradients import parse_gradient
from creditflow.core.programs import run_program

Value = TypeVar("Value")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Ends with one line. The usage is left out, as it would hide the line in the log of a workflow."""
        self.exit(2, f"error: {message}; `python {self.prog} --help` lists all options\n")


def stage_parser(description: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help begins with `description`, the docstring of the script."""
    return _Parser(prog=sys.argv[0], description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)


def add_compute_options(parser: argparse.ArgumentParser, *, seed: bool = True) -> None:
    """Adds --device, --threads and, for stages with one seed, --seed."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads", type=thread_count, default=1, help="CPU threads; results may depend on it in the last bits"
    )
    if seed:
        parser.add_argument("--seed", type=natural, default=0, help="every random number of the job derives from it")


def add_records_option(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names the records: thousands of paths do not fit on a command line."""
    parser.add_argument(
        "--records-list", type=existing_file, required=True, help="text file with the path of one record on each line"
    )


def add_frame_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the options that name what a table or figure shows: files, or a list of records."""
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--frame", type=existing_file, nargs="+", help=what)
    either.add_argument(
        "--records-list",
        type=existing_file,
        help="text file with the path of one record on each line, where too many records are shown for --frame",
    )


def frame_paths(args: argparse.Namespace) -> list[Path]:
    """Returns the files that a table or figure shows. Raises UserError if --records-list names no list of records."""
    from creditflow.records.listing import listed_paths

    paths: list[Path] = args.frame
    return paths if args.records_list is None else listed_paths(args.records_list)


def add_experiment_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that name an experiment and the folder of its results."""
    parser.add_argument("--experiment", required=True, help="name of a file in the experiments folder")
    parser.add_argument(
        "--experiments", type=existing_file, default=Path("config/experiments"), help="folder of experiments"
    )
    parser.add_argument(
        "--results", type=existing_file, default=Path("results"), help="folder that holds the experiment's records"
    )


#: The largest numbers that options take; those of experiments are the same or smaller.
_MAX_COUNT, _MAX_SEED, _MAX_THREADS, _MAX_SIZE = 100_000_000, 2**32 - 1, 4096, 10_000
_MAX_EPSILON, _MAX_RATE = 10_000_000, 100


def positive(text: str) -> int:
    """Reads an integer from 1 to 100,000,000; a type for argparse."""
    return _integer(text, 1, _MAX_COUNT)


def natural(text: str) -> int:
    """Reads an integer of at least 0, such as a seed or a label, that fits into 32 bits; a type for argparse."""
    return _integer(text, 0, _MAX_SEED)


def thread_count(text: str) -> int:
    """Reads a number of threads, from 1 to 4,096; a type for argparse."""
    return _integer(text, 1, _MAX_THREADS)


def image_size(text: str) -> int:
    """Reads the height and width of images in pixels, from 1 to 10,000; a type for argparse."""
    return _integer(text, 1, _MAX_SIZE)


def _integer(text: str, minimum: int, maximum: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = minimum - 1
    if not minimum <= number <= maximum:
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise argparse.ArgumentTypeError(f"{shown!r} is not an integer of at least {minimum} and at most {maximum:,}")
    return number


def epsilon(text: str) -> float:
    """Reads the size of a perturbation, from 0 to 10,000,000; a type for argparse."""
    return _number(
        text,
        lambda number: 0 <= number <= _MAX_EPSILON,
        f"a perturbation size (a finite number >= 0, and at most {_MAX_EPSILON:,})",
    )


def positive_number(text: str) -> float:
    """Reads a learning rate, above 0 and at most 100; a type for argparse."""
    return _number(text, lambda number: 0 < number <= _MAX_RATE, f"a finite number above 0 and at most {_MAX_RATE}")


def share(text: str) -> float:
    """Reads a share, from 0 to 1; a type for argparse."""
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
    """Reads a JSON object such as {"steps": 5}; a type for argparse."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{text[:200]!r} is not JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"{name} is not a finite number")


def gradient(text: str) -> str:
    """Reads the name of an attacker's gradient, as `core.gradients` spells it; a type for argparse."""
    try:
        return str(parse_gradient(text))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def named(names: Sequence[str], read: Callable[[str], Value]) -> Callable[[str], tuple[str, Value]]:
    """Returns a type for argparse that reads NAME=VALUE: one of the names, and a value that `read` reads."""

    def pair(text: str) -> tuple[str, Value]:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            raise argparse.ArgumentTypeError(
                f"{text[:200]!r} does not begin with {' or '.join(f'{n}=' for n in names)}"
            )
        return name, read(value)

    return pair


def file_path(text: str) -> Path:
    """Reads the path of a file or folder, with `~` and `$VAR` as a shell would; a type for argparse."""
    return as_path(text)


def existing_file(text: str) -> Path:
    """Reads the path of a file or folder that exists; a type for argparse."""
    path = as_path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return path


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage and ends the process, as `core.programs.run_program` does."""
    run_program(main)
