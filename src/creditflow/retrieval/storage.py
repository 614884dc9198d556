"""Codes on disk: one safetensors file with the codes and labels of queries, training images and database."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as dump_tensors
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.identity import check_identity
from creditflow.data.sealed import check_tensors, facts_of, reading
from creditflow.retrieval.protocol import Part

PARTS: tuple[Part, ...] = ("query", "train", "database")


@dataclass(frozen=True)
class Encoded:
    """One part: codes int8 (N, K), labels int64 (N,) or uint8 zeros and ones (N, C)."""

    codes: Tensor
    labels: Tensor


def save_codes(
    path: Path, parts: dict[Part, Encoded], source: dict[str, object], identity: Mapping[str, object] | None = None
) -> None:
    """Writes the parts, atomically.

    Args:
        path: the file.
        parts: codes and labels of each part.
        source: what the codes follow from: hashes of model and data, the model's input, the protocol.
        identity: which model's codes these are: experiment, dataset, backbone, rule, seed.
    """
    tensors = {
        f"{name}_{what}": getattr(part, what).cpu().contiguous()
        for name, part in parts.items()
        for what in ("codes", "labels")
    }
    # One metadata entry, as safetensors does not keep the order of several.
    content = {name: files.sha256(tensor.numpy().data) for name, tensor in tensors.items()}
    facts = json.dumps(files.seal({"identity": identity, "source": source, "sha256": content}), sort_keys=True)
    files.write_atomically(path, dump_tensors(tensors, metadata={"creditflow": facts}))


def load_codes(
    path: Path, source: dict[str, object], expected: Mapping[str, object] | None = None
) -> dict[Part, Encoded]:
    """Reads the parts.

    Raises UserError if the file is damaged, if its codes have another source, or if their identity lacks what is
    expected of it.
    """
    with reading(path, "has no codes", "encode again"):
        with safetensors.safe_open(path, framework="pt") as file:
            facts = facts_of(file)
            tensors = {
                f"{name}_{what}": file.get_tensor(f"{name}_{what}") for name in PARTS for what in ("codes", "labels")
            }
        check_tensors(tensors, facts)
        written, identity = facts["source"], facts.get("identity")
        parts = {name: Encoded(tensors[f"{name}_codes"], tensors[f"{name}_labels"]) for name in PARTS}
    check_identity(path, "the set of codes", identity, expected)
    if written != source:
        other = next(name for name in sorted({*written, *source}) if written.get(name) != source.get(name))
        raise UserError(f"{path} has codes of another {other}; encode again with encode.py")
    if any(part.codes.dtype != torch.int8 or len(part.codes) != len(part.labels) for part in parts.values()):
        raise UserError(f"{path} has codes and labels that do not belong together; move it away and encode again")
    return parts
