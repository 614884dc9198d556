"""The result record: what a leaf job leaves behind, and what tables and figures are made from.

A record is `<name>.json` (keys, metrics, checks, settings, provenance) and `<name>.safetensors` (outcomes per
example). The JSON is written last and holds the hash of the other file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as dump_arrays

from creditflow.core import files
from creditflow.core.errors import UserError, one_line

_FORMAT = 1


@dataclass(frozen=True)
class Keys:
    """What identifies a record within a project.

    `attack` is "clean" for plain accuracy; `gradient` is "exact", "feedback", or "none" where no gradient is used.
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
    """One number: its name, the epsilon it belongs to (None if none), its value, over how many examples, the epoch of
    training after which it was measured (None at its end), and the rank or Hamming radius that it is of (None if none)."""

    metric: str
    epsilon: float | None
    value: float
    n: int
    epoch: int | None = None
    at: int | None = None


@dataclass(frozen=True)
class Record:
    """A record as read back. `outcomes["correct"]` is bool (epsilons, examples), or `outcomes["ap"]`
    average precisions; `outcomes["example"]` names the examples."""

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
    """Writes a record, atomically. `facts` (checks, settings, provenance, run, ...) are stored as they are.

    Two runs of the same job write the same bytes but for `run`. Raises ValueError for a metric that is not finite.
    """
    arrays = dump_arrays({name: np.ascontiguousarray(array) for name, array in outcomes.items()})
    content = {
        "format": _FORMAT,
        "keys": asdict(keys),
        "metrics": [asdict(metric) for metric in metrics],
        "outcomes": {"file": path.with_suffix(".safetensors").name, "sha256": files.sha256(arrays)},
        **facts,
    }
    sealed = files.json_bytes(files.seal(content))  # before anything is written: it refuses numbers that are not finite
    files.write_atomically(path.with_suffix(".safetensors"), arrays)
    files.write_atomically(path, sealed)


def read_record(path: Path) -> Record:
    """Reads a record and verifies its outcomes. Raises UserError if either file is missing, damaged or of another format."""
    content = files.read_json(path, "a creditflow record")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise UserError(
            f"{path} is a record of format {found}, this version reads {_FORMAT}; delete it and run the same command again"
        )
    try:
        keys = Keys(**content["keys"])
        metrics = tuple(Metric(**row) for row in content["metrics"])
        arrays_path = path.with_name(content["outcomes"]["file"])
        arrays = arrays_path.read_bytes()
        if files.sha256(arrays) != content["outcomes"]["sha256"]:
            raise UserError(
                f"{arrays_path} is damaged or belongs to another record; delete {path} and run the same command again"
            )
        return Record(path, keys, metrics, load_arrays(arrays), content)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        raise UserError(
            f"{path} is not a whole record ({one_line(error)}); delete it and run the same command again"
        ) from error
