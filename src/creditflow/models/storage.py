"""Models on disk: `<name>.safetensors`, `<name>.feedback.safetensors` and the sidecar `<name>.json`.

The sidecar is written last and holds the hashes of the other two files. So a model is either whole or not there. It
describes the project's own networks by a `ModelSpec`, and any other module by the factory that makes it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.models.build import ImageClassifier, ModelSpec

_FORMAT = 1

#: What to do about a damaged file. It may be the only copy that its owner has, so nobody is told to lose it.
_ADVICE = "copy the model's files again from where they are whole, or train the model again"


def feedback_path(path: Path) -> Path:
    """Returns the path of the feedback state that belongs to a model file."""
    return path.with_suffix(".feedback.safetensors")


def sidecar_path(path: Path) -> Path:
    """Returns the path of the sidecar that belongs to a model file."""
    return path.with_suffix(".json")


def save_model(
    path: str | Path,
    model: nn.Module,
    *,
    factory: str | None = None,
    rule: str = "bp",
    feedback: Mapping[str, Tensor] | None = None,
    **facts: Any,
) -> None:
    """Writes the plain weights, the feedback state of the rule, and the sidecar.

    Args:
        path: the file of the weights, `<name>.safetensors`. Files of the same name are replaced.
        model: any module, or a view of one.
        factory: what makes a model of this kind, such as "my_module.py:make_model": a function without arguments. Only
            a model that `build_model` made needs none. The factory is called once, to compare its model with this one.
        rule: id of the rule that trained it.
        feedback: what `feedback_state` returned.
        facts: JSON-like values, which go into the sidecar as they are.

    Raises:
        UserError: the path has another suffix, or is a folder, or cannot be written; the model has no factory, or the
            factory makes another one; the feedback holds something else than tensors; or a fact is no JSON, or has a
            name that the sidecar uses itself.
    """
    path = _checked_path(path)
    _check_content(rule, feedback, facts)
    spec = _spec(model, factory)
    weights = _dump(model.state_dict())
    state = _dump(feedback or {})
    sidecar = {
        "format": _FORMAT,
        "spec": spec,
        "rule": rule,
        "sha256": {"weights": files.sha256(weights), "feedback": files.sha256(state)},
        **facts,
    }
    try:
        content = files.json_bytes(files.seal(sidecar))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"the facts about {path} are no JSON ({one_line(error)}); give numbers, texts, lists"
        ) from error
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file in it, such as {path / 'model.safetensors'}")
    try:
        files.write_atomically(path, weights)
        files.write_atomically(feedback_path(path), state)
        files.write_atomically(sidecar_path(path), content)
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); choose another place") from error


#: Keys of a sidecar that are no facts.
_OWN_KEYS = ("format", "spec", "sha256", "seal")


def _checked_path(path: object) -> Path:
    """Returns the path of a model file. Raises UserError for other types, and for a suffix that a sidecar may have."""
    if not isinstance(path, str | Path):
        raise UserError(f"a model's path is a text or a Path, not {type(path).__name__}")
    path = Path(path)
    if path.suffix not in ("", ".safetensors"):
        raise UserError(f"{path}: a model file ends in .safetensors; the sidecar beside it ends in .json")
    return path


def _spec(model: object, factory: str | None) -> dict[str, Any]:
    """Returns how a sidecar describes a model. Raises UserError for one that could not be made again."""
    if isinstance(model, ImageClassifier) and factory is None:
        return model.spec.to_json()
    if not isinstance(model, nn.Module):
        raise UserError(f"a model is a torch.nn.Module, not {type(model).__name__}; give the module itself")
    if factory is None:
        raise UserError(
            f"{type(model).__name__} can be loaded again only by what makes it; give"
            ' factory="my_module.py:make_model", a function without arguments that returns such a network'
        )
    from creditflow.models.by_factory import factory_spec  # it loads models itself

    return factory_spec(model, factory)


def _check_content(rule: object, feedback: object, facts: Mapping[str, Any]) -> None:
    """Raises UserError for what cannot be saved, or could not be loaded again."""
    if not isinstance(rule, str):
        raise UserError(f"rule is the id of a rule, not {type(rule).__name__}")
    if feedback is not None and not (
        isinstance(feedback, Mapping) and all(isinstance(tensor, Tensor) for tensor in feedback.values())
    ):
        raise UserError("feedback is what feedback_state returned: tensors by name")
    taken = [key for key in facts if key in _OWN_KEYS]
    if taken:
        raise UserError(f"the sidecar itself uses the name {taken[0]!r}; give this fact another name")


def load_model(path: str | Path) -> nn.Module:
    """Returns the plain model, in eval mode on the CPU.

    The gradients of the project's own networks (`ImageClassifier`) are exact. Of any other module that `save_model`
    wrote, the factory makes the network; nothing is unpickled. A factory is code: load such a model only from people
    whose code you would run.

    Raises UserError if the file or its sidecar is missing, is damaged, or is not that of a creditflow model, and if a
    factory has changed since, or cannot be run.
    """
    path = _checked_path(path)
    sidecar = read_sidecar(path)
    tensors = _read(path, sidecar["sha256"]["weights"])
    if not is_given(sidecar):
        return _classifier(path, sidecar, tensors)
    from creditflow.models.by_factory import made_by_factory  # it loads models itself

    return made_by_factory(sidecar["spec"], tensors, path)


def is_given(sidecar: Mapping[str, Any]) -> bool:
    """Returns whether a sidecar describes a module by its factory, and not one of the project's own networks."""
    return isinstance(sidecar["spec"], dict) and isinstance(sidecar["spec"].get("factory"), str)


def load_classifier(path: str | Path) -> ImageClassifier:
    """Returns one of the project's own networks, as `load_model` does. Raises UserError for any other module, too."""
    model = load_model(path)
    if not isinstance(model, ImageClassifier):
        raise UserError(f"{path} is {type(model).__name__}, which a factory makes; name a network that a stage trained")
    return model


def _classifier(path: Path, sidecar: Mapping[str, Any], tensors: dict[str, Tensor]) -> ImageClassifier:
    try:
        with torch.device("meta"):  # weights that are replaced at once need no memory and no random numbers
            model = ImageClassifier(ModelSpec.from_json(sidecar["spec"]))
        model.load_state_dict(tensors, assign=True)
    except (UserError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{path} does not hold the model that its sidecar describes ({one_line(error)}); {_ADVICE}"
        ) from error
    return model.eval()


def load_feedback(path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """Returns the id of the rule that trained a model, and its feedback state, for `apply_rule(..., state=)`.

    Raises UserError as `load_model` does.
    """
    path = _checked_path(path)
    sidecar = read_sidecar(path)
    return str(sidecar["rule"]), _read(feedback_path(path), sidecar["sha256"]["feedback"])


def read_sidecar(path: Path) -> dict[str, Any]:
    """Returns the sidecar of a model file. Raises UserError if it is missing, damaged, or not a sidecar."""
    place = sidecar_path(path)
    if not place.exists():
        raise UserError(
            f"{place} is not there; without this sidecar {path} is no creditflow model: keep the files that save_model"
            " or a stage wrote together, and read weights of other programs by import_weights.py"
        )
    sidecar: dict[str, Any] = files.read_json(place, "the sidecar of a creditflow model", advice=_ADVICE)
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
    # What is tied in the model is written twice: safetensors takes no two tensors in the same memory.
    whole: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        whole[name] = plain.clone() if place in places else plain
        places.add(place)
    return dump_tensors(whole)


def _read(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        content = files.read_plain(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_ADVICE}") from error
    if files.sha256(content) != expected:
        raise UserError(f"{path} is damaged or not the file that its sidecar describes; {_ADVICE}")
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise UserError(f"{path} is not a safetensors file ({one_line(error)}); {_ADVICE}") from error
