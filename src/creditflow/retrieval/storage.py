"""Codes on disk: one safetensors file with the codes and labels of queries, training images and database."""

import json
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save as dump_tensors
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.retrieval.protocol import Part

PARTS: tuple[Part, ...] = ("query", "train", "database")


@dataclass(frozen=True)
class Encoded:
    """One part: codes int8 (N, K), labels int64 (N,) or uint8 zeros and ones (N, C)."""

    codes: Tensor
    labels: Tensor


def save_codes(path: Path, parts: dict[Part, Encoded], source: dict[str, object]) -> None:
    """Writes the parts, atomically, with their source: hashes of model and data, the model's input, the protocol."""
    tensors = {
        f"{name}_{what}": getattr(part, what).cpu().contiguous()
        for name, part in parts.items()
        for what in ("codes", "labels")
    }
    # One metadata entry, as safetensors does not keep the order of several.
    content = {name: files.sha256(tensor.numpy().data) for name, tensor in tensors.items()}
    facts = json.dumps(files.seal({"source": source, "sha256": content}), sort_keys=True)
    files.write_atomically(path, dump_tensors(tensors, metadata={"creditflow": facts}))


def load_codes(path: Path, source: dict[str, object]) -> dict[Part, Encoded]:
    """Reads the parts. Raises UserError if the file is damaged, or if its codes have another source."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["creditflow"])
            tensors = {
                f"{name}_{what}": file.get_tensor(f"{name}_{what}") for name in PARTS for what in ("codes", "labels")
            }
            if not files.is_whole(facts) or any(
                files.sha256(tensor.numpy().data) != facts["sha256"][name] for name, tensor in tensors.items()
            ):
                raise ValueError("its content is not what was written")
            written = facts["source"]
            parts = {name: Encoded(tensors[f"{name}_codes"], tensors[f"{name}_labels"]) for name in PARTS}
    except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} has no codes ({one_line(error)}); delete it and encode again") from error
    if written != source:
        other = next(name for name in sorted({*written, *source}) if written.get(name) != source.get(name))
        raise UserError(f"{path} has codes of another {other}; encode again with encode.py")
    if any(part.codes.dtype != torch.int8 or len(part.codes) != len(part.labels) for part in parts.values()):
        raise UserError(f"{path} has codes and labels that do not belong together; delete it and encode again")
    return parts
