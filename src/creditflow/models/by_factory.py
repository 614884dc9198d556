"""Models that a sidecar describes by the factory that makes them: any module, not only the project's own networks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.factory import ModelSource, parse_source
from creditflow.models.factories import make_model
from creditflow.models.weights import put_weights


def factory_spec(model: nn.Module, factory: object) -> dict[str, Any]:
    """Returns what a sidecar says of a model: its factory, and the hash of the factory's file.

    Raises UserError if the text names no factory, the factory makes no model, or another one than this.
    """
    if not isinstance(factory, str):
        raise UserError(f"factory is a text such as 'my_module.py:make_model', not {type(factory).__name__}")
    made = _tensors(make_model(factory), factory)
    for name, tensor in _tensors(model, "the model").items():
        twin = made.pop(name, None)
        if twin is None or (twin.shape, twin.dtype) != (tensor.shape, tensor.dtype):
            kind = f"{name} with shape {tuple(tensor.shape)} and type {tensor.dtype}"
            other = "has no such tensor" if twin is None else f"has shape {tuple(twin.shape)} and type {twin.dtype}"
            raise UserError(f"{factory} makes another model: this one has {kind}, the factory's {other}")
    if made:
        raise UserError(f"{factory} makes another model: it has {next(iter(made))!r}, which this one has not")
    return {"factory": factory, "factory_sha256": _file_hash(factory, Path.cwd())}


def _tensors(model: nn.Module, what: str) -> dict[str, Tensor]:
    state = model.state_dict()
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{what} has {others[0]!r} in its state dict, which is no tensor; keep it out of the state dict"
        )
    uninitialised = [name for name, value in state.items() if is_lazy(value)]
    if uninitialised:
        raise UserError(f"{what} has {uninitialised[0]!r} without a shape yet; run the model once on images before")
    return state


def made_by_factory(spec: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Returns the model that a sidecar describes by its factory, with these tensors, in eval mode on the CPU.

    A relative path of the factory begins in the working directory, or else in the folder of the model.

    Raises UserError if the factory has changed since the model was saved, cannot be run, or makes another model.
    """
    factory = spec["factory"]
    source = parse_source(factory)
    here, there = Path.cwd(), path.resolve().parent
    base = next((folder for folder in (here, there) if _is_in(source, folder)), None)
    if base is None:
        raise UserError(f"{path} is made by {factory}, which is neither in {here} nor in {there}; put the file there")
    if _file_hash(factory, base) != spec.get("factory_sha256"):
        raise UserError(
            f"{factory} has changed since {path} was saved, so that it may make another model; put the file back, or"
            " save the model again: safetensors.torch.load_file reads its weights"
        )
    model = make_model(factory, base=base)
    put_weights(model, tensors, path)
    return model


def _is_in(source: ModelSource, folder: Path) -> bool:
    """Returns whether a factory's file is there if its path begins in a folder; one that names no file is anywhere."""
    place = source.file(folder)
    return place is None or place.is_file()


def _file_hash(factory: str, base: Path) -> str | None:
    """Returns the SHA-256 of the file that a factory lies in; None if it lies in a module or in torchvision."""
    place = parse_source(factory).file(base)
    return None if place is None else files.file_sha256(place)
