"""Models on disk: `<name>.safetensors`, `<name>.feedback.safetensors` and the sidecar `<name>.json`.

The sidecar is written last and holds the hashes of the other two files. So a model is either whole or not there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.models.build import ImageClassifier, ModelSpec

_FORMAT = 1


def feedback_path(path: Path) -> Path:
    """Returns the path of the feedback state that belongs to a model file."""
    return path.with_suffix(".feedback.safetensors")


def sidecar_path(path: Path) -> Path:
    """Returns the path of the sidecar that belongs to a model file."""
    return path.with_suffix(".json")


def save_model(
    path: str | Path,
    model: ImageClassifier,
    *,
    rule: str = "bp",
    feedback: Mapping[str, Tensor] | None = None,
    **facts: Any,
) -> None:
    """Writes the plain weights, the feedback state of the rule, and the sidecar.

    `facts` are JSON-like values, which go into the sidecar as they are. A file of the same name is replaced.
    """
    path = Path(path)
    weights = _dump(model.state_dict())
    state = _dump(feedback or {})
    sidecar = {
        "format": _FORMAT,
        "spec": model.spec.to_json(),
        "rule": rule,
        "sha256": {"weights": files.sha256(weights), "feedback": files.sha256(state)},
        **facts,
    }
    files.write_atomically(path, weights)
    files.write_atomically(feedback_path(path), state)
    files.write_sealed_json(sidecar_path(path), sidecar)


def load_model(path: str | Path) -> ImageClassifier:
    """Returns the plain model, whose gradients are exact, in eval mode on the CPU.

    Raises UserError if the file or its sidecar is missing, is damaged, or is not that of a creditflow model.
    """
    path = Path(path)
    sidecar = read_sidecar(path)
    tensors = _read(path, sidecar["sha256"]["weights"])
    try:
        with torch.device("meta"):  # weights that are replaced at once need no memory and no random numbers
            model = ImageClassifier(ModelSpec.from_json(sidecar["spec"]))
        model.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{path} does not hold the model that its sidecar describes ({one_line(error)});"
            " delete both and train it again"
        ) from error
    return model.eval()


def load_feedback(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Returns the id of the rule that trained a model, and its feedback state, for `apply_rule(..., state=)`.

    Raises UserError as `load_model` does.
    """
    path = Path(path)
    sidecar = read_sidecar(path)
    return str(sidecar["rule"]), _read(feedback_path(path), sidecar["sha256"]["feedback"])


def read_sidecar(path: Path) -> dict[str, Any]:
    """Returns the sidecar of a model file. Raises UserError if it is missing, damaged, or not a sidecar."""
    sidecar: dict[str, Any] = files.read_json(sidecar_path(path), "the sidecar of a creditflow model")
    hashes = sidecar.get("sha256") if isinstance(sidecar, dict) else None
    if (
        not isinstance(hashes, dict)
        or not {"format", "spec", "rule"} <= sidecar.keys()
        or not {"weights", "feedback"} <= hashes.keys()
    ):
        raise UserError(
            f"{sidecar_path(path)} is not the sidecar of a creditflow model; name a .safetensors that a stage wrote"
        )
    if sidecar["format"] != _FORMAT:
        raise UserError(
            f"{sidecar_path(path)} has format {sidecar['format']}, this version reads {_FORMAT}; train the model again"
        )
    return sidecar


def _dump(tensors: Mapping[str, Tensor]) -> bytes:
    return dump_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _read(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); train the model again") from error
    if files.sha256(content) != expected:
        raise UserError(
            f"{path} is damaged or not the file its sidecar describes; delete both and train the model again"
        )
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a safetensors file ({one_line(error)}); delete it and train the model again"
        ) from error
