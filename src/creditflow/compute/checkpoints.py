"""Checkpoints: the state of a job that can be resumed.

A checkpoint fits one job only, and it is verified before it is read.
"""

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from creditflow.core.files import write_atomically


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its checkpoint, and the fingerprint of everything that determines the run."""

    path: Path
    identity: str


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Saves the state of a job, atomically: tensors, numbers, texts, and lists and dicts of them.

    `identity` is the fingerprint of everything that determines the job.
    """
    buffer = io.BytesIO()
    torch.save({"identity": identity, "state": state}, buffer)
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def load_checkpoint(path: Path, identity: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Returns the saved state; None if there is no file, and None after a warning if it is damaged or of another job.

    The content is verified by its SHA-256 first. It is then read with `weights_only=True`, so nothing is unpickled.

    Args:
        path: the checkpoint.
        identity: the fingerprint of the job that wants to go on from it.
        warn: called with the warning, one line.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        warn(f"ignoring the damaged checkpoint {path}; starting from the beginning")
        return None
    try:
        saved = torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")
        saved_identity, state = saved["identity"], saved["state"]
        if not isinstance(state, dict):
            raise TypeError("the state is no dictionary")
    except Exception:  # torch's reader fails in many ways on files of another kind
        warn(f"ignoring {path}, which is no checkpoint; starting from the beginning")
        return None
    if saved_identity != identity:
        warn(f"ignoring the checkpoint {path}: it belongs to other settings or inputs; starting from the beginning")
        return None
    return dict(state)
