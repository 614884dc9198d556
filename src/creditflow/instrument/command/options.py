"""Options of the command line: how they are spelled, and how numbers are read. It imports no torch."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from creditflow.core.errors import UserError, one_line

#: Options that take several numbers after one another.
_SEVERAL = ("--epsilons", "--epsilon", "--bounds", "--mean", "--std", "--reference-mean", "--reference-std")
#: What looks like numbers: 0.01, -1, 1e-3, 8/255, and lists of them with commas.
_NUMBERS = re.compile(r"[-+\d.,/eE]*\d[-+\d.,/eE]*")

_MODEL = (
    "file.py:function, package.module:function, torchvision:resnet18 (:10 for ten classes, @DEFAULT for published"
    " weights), a TorchScript (.pt) or torch.export (.pt2) file, or a model of ours (.safetensors)"
)
_IMAGES = "a folder with a folder of images for each class, an .npz file with `images` and `labels`, or dataset:NAME"

Model = Annotated[str, typer.Argument(metavar="MODEL", help=f"The model: {_MODEL}.", show_default=False)]
Weights = Annotated[
    Path | None, typer.Option(help="Its weights: .safetensors, or what torch.save wrote.", show_default=False)
]
Sha256 = Annotated[
    str | None, typer.Option(help="First digits of the SHA-256 of that file, 8 or more.", show_default=False)
]
Images = Annotated[str, typer.Option(help=f"The images: {_IMAGES}.", show_default=False)]
Epsilons = Annotated[
    list[str],
    typer.Option(
        "--epsilons",
        "--epsilon",
        metavar="SIZE...",
        help="Sizes of perturbations in the units of --bounds, rising, such as 0.01 0.05 or 2/255 8/255.",
        show_default=False,
    ),
]
Reference = Annotated[
    str | None, typer.Option(help="The model that it is compared with, named as MODEL is.", show_default=False)
]
Bounds = Annotated[
    list[str] | None,
    typer.Option(metavar="LOW HIGH", help="Range of a pixel. [default: 0 1]", show_default=False),
]
Mean = Annotated[
    list[str] | None,
    typer.Option(metavar="MEAN...", help="What the model's input is centred by, per channel.", show_default=False),
]
Std = Annotated[
    list[str] | None,
    typer.Option(metavar="STD...", help="What it is then divided by, per channel.", show_default=False),
]
Size = Annotated[
    int | None,
    typer.Option(min=1, max=10_000, help="Scale image files to this height and width.", show_default=False),
]
Count = Annotated[int, typer.Option(min=1, help="Number of images; more are drawn from at random.")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Number of images at once; found by itself.", show_default=False)
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Every random number follows from it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


class SeveralValues(TyperCommand):
    """A command some of whose options take several numbers: `--epsilons 0.01 0.05` as well as one at a time."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeats the option before each of its numbers, and parses that."""
        return super().parse_args(ctx, repeated(args))


def repeated(arguments: Sequence[str]) -> list[str]:
    """Returns a command line in which `--epsilons 0.01 0.05` is `--epsilons 0.01 --epsilons 0.05`."""
    spelled: list[str] = []
    option, n_values = "", 0
    for index, argument in enumerate(arguments):
        if argument == "--":
            return spelled + list(arguments[index:])
        if argument in _SEVERAL:
            option, n_values = argument, 0
        elif option and _NUMBERS.fullmatch(argument):
            spelled += [option] if n_values else []
            n_values += 1
        else:
            option = ""
        spelled.append(argument)
    return spelled


def numbers(texts: Sequence[str], option: str) -> list[float]:
    """Reads numbers and fractions, also several in one text with commas. Raises UserError for anything else."""
    words = [word for text in texts for word in text.replace(",", " ").split()]
    if not words:
        raise UserError(f"{option} has no value; give numbers, such as {option} 0.01 8/255")
    return [_number(word, option) for word in words]


def _number(word: str, option: str) -> float:
    try:
        above, slash, below = word.partition("/")
        number = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{option}: {word[:80]!r} is neither a number nor a fraction such as 8/255")
    return number


def bounds(texts: Sequence[str] | None) -> tuple[float, float]:
    """Reads the lowest and the highest value of a pixel, 0 and 1 by default. Raises UserError if they are none."""
    if not texts:
        return 0.0, 1.0
    values = numbers(texts, "--bounds")
    if len(values) != 2 or values[0] >= values[1]:
        raise UserError(f"--bounds {' '.join(texts)}: give the lowest and the highest value of a pixel, such as 0 1")
    return values[0], values[1]


def normalisation(mean: Sequence[str] | None, std: Sequence[str] | None, prefix: str = "") -> dict[str, Any] | None:
    """Returns mean and standard deviation per channel; None if none are given. Raises UserError for one alone."""
    if not mean and not std:
        return None
    if not mean or not std:
        raise UserError(f"--{prefix}mean and --{prefix}std belong together; give both or none")
    values = {"mean": numbers(mean, f"--{prefix}mean"), "std": numbers(std, f"--{prefix}std")}
    if len(values["mean"]) != len(values["std"]) or min(values["std"]) <= 0:
        raise UserError(f"--{prefix}std must have a positive number for each number of --{prefix}mean")
    return values


def json_object(text: str, option: str) -> dict[str, Any]:
    """Reads a JSON object such as {"steps": 5}. Raises UserError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{option}: {text[:200]!r} is not JSON ({one_line(error)})") from error
    if not isinstance(value, dict):
        raise UserError(f'{option}: {text[:200]!r} is not a JSON object such as {{"steps": 5}}')
    return value
