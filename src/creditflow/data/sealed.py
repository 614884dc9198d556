"""Sealed safetensors files, such as prepared datasets and sets of codes: how they are read, and what damage becomes."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line

#: What reading JSON of anything, and tensors of anything, can raise.
_DAMAGE = (OSError, TypeError, KeyError, ValueError, AttributeError, RecursionError, SafetensorError)


@contextmanager
def reading(path: Path, mistake: str, again: str) -> Iterator[None]:
    """Turns whatever a block that reads a damaged file raises into a UserError of one line.

    Args:
        path: the file.
        mistake: what is wrong with a damaged file, in words that follow its path, such as "has no codes".
        again: how the file is made again, such as "encode again".
    """
    try:
        files.check_plain(path)
        yield
    except _DAMAGE as error:
        raise UserError(f"{path} {mistake} ({one_line(error)}); move it away and {again}") from error


def facts_of(file: Any) -> dict[str, Any]:
    """Returns the facts beside the tensors of an open file. Raises ValueError if their seal is not there or wrong."""
    facts: dict[str, Any] = json.loads(file.metadata()["creditflow"])
    if not files.is_whole(facts):
        raise ValueError("it has no seal, or its seal is not that of its content")
    return facts


def check_tensors(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raises ValueError if a tensor is not the one whose SHA-256 the facts state."""
    if any(files.sha256(tensor.numpy().data) != facts["sha256"][name] for name, tensor in tensors.items()):
        raise ValueError("its content is not what was written")
