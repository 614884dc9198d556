"""The result record: what a measurement leaves behind, and what tables and figures are made from.

A record is two files: `<name>.json` (keys, metrics, checks, settings, provenance) and `<name>.safetensors` (the outcome
of each example). The JSON file is written last and holds the hash of the other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.records import agreement

_FORMAT = 1


@dataclass(frozen=True)
class Keys:
    """What identifies a record within a project.

    `attack` is "clean" for plain accuracy. `gradient` is what the attacker differentiates, as `core.gradients` spells
    it: "exact", "feedback", "through:<rule>", "surrogate:<name>", or "none" where no gradient is used.
    """

    experiment: str
    task: str
    dataset: str
    backbone: str
    rule: str
    seed: int
    attack: str
    gradient: str


@dataclass(frozen=True)
class Metric:
    """One number.

    Attributes:
        metric: its name.
        epsilon: size of the perturbation, in the attack's norm; None without an attack.
        value: the number.
        n: the number of examples over which it was measured.
        epoch: the epoch of training after which it was measured; None at the end of training.
        at: the rank or the Hamming radius at which it was measured; None for other metrics.
    """

    metric: str
    epsilon: float | None
    value: float
    n: int
    epoch: int | None = None
    at: int | None = None


@dataclass(frozen=True)
class Record:
    """A record as it was read.

    Attributes:
        path: its JSON file.
        keys: what identifies it.
        metrics: its numbers.
        outcomes: arrays by name. `outcomes["correct"]` is bool (epsilons, examples), or `outcomes["ap"]` has average
            precisions of the same shape; `outcomes["example"]` (examples,) numbers the examples.
        content: all that the JSON file says.
    """

    path: Path
    keys: Keys
    metrics: tuple[Metric, ...]
    outcomes: dict[str, NDArray[Any]]
    content: dict[str, Any]


def write_record(
    path: Path,
    keys: Keys,
    metrics: Sequence[Metric],
    outcomes: Mapping[str, NDArray[Any]],
    **facts: Any,
) -> None:
    """Writes a record atomically. The `facts` (checks, settings, provenance, run, ...) are stored as they are.

    Two runs of the same job write the same bytes, except for `run`. Raises ValueError for a metric that is not finite.
    """
    arrays = dump_arrays({name: np.ascontiguousarray(array) for name, array in outcomes.items()})
    content = {
        "format": _FORMAT,
        "keys": asdict(keys),
        "metrics": [asdict(metric) for metric in metrics],
        "outcomes": {"file": path.with_suffix(".safetensors").name, "sha256": files.sha256(arrays)},
        **facts,
    }
    sealed = files.json_bytes(files.seal(content))  # refuses, before a file is written, numbers that are not finite
    files.write_atomically(path.with_suffix(".safetensors"), arrays)
    files.write_atomically(path, sealed)


#: The types of fields that hold no text. JSON's true and false would pass for numbers.
_TYPES: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "epsilon": (int, float, NoneType),
    "value": (int, float),
    "n": (int,),
    "epoch": (int, NoneType),
    "at": (int, NoneType),
}

_Row = TypeVar("_Row", Keys, Metric)


def _checked(row: _Row) -> _Row:
    """Returns keys or a metric as they are. Raises TypeError for a value of another type than its field has."""
    for name, value in asdict(row).items():
        if type(value) not in _TYPES.get(name, (str,)):
            raise TypeError(f"its {name} is {value!r}")
    return row


def read_record(path: Path) -> Record:
    """Reads a record, verifies its outcomes, and checks that its numbers are what the outcomes say.

    Raises UserError if one of the two files is missing, damaged or of another format, or if numbers and outcomes
    contradict each other.
    """
    content = files.read_json(path, "a creditflow record")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        written_format = content.get("format") if isinstance(content, dict) else None
        raise UserError(
            f"{path} is a record of format {written_format}, this version reads {_FORMAT};"
            " move it away and run the same command again"
        )
    try:
        keys = _checked(Keys(**content["keys"]))
        metrics = tuple(_checked(Metric(**row)) for row in content["metrics"])
        arrays_path = path.with_suffix(".safetensors")
        arrays = files.read_plain(arrays_path)
        if files.sha256(arrays) != content["outcomes"]["sha256"]:
            raise UserError(
                f"{arrays_path} is damaged or belongs to another record;"
                f" move {path} away and run the same command again"
            )
        outcomes = load_arrays(arrays)
        mistake = agreement.mistake(content, outcomes)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, SafetensorError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else one_line(error)
        raise UserError(f"{path} is not a whole record ({why}); move it away and run the same command again") from error
    if mistake:
        raise UserError(f"{path}: {mistake}; move it away and run the same command again")
    return Record(path, keys, metrics, outcomes, content)
