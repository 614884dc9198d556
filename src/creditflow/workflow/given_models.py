"""Models that a user gives, in place of pretraining and fine-tuning: their keys, their files, and the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.factory import parse_source
from creditflow.core.files import as_path
from creditflow.core.matched import is_control
from creditflow.core.settings import Many
from creditflow.workflow.key_types import ONCE, Name, Section, Seeds

#: What stands for the seed in the name of a file of weights.
_SEED = "{seed}"


def checked_factory(text: str) -> str:
    """Returns the text that names a model. Raises ValueError if it names none."""
    try:
        parse_source(text)
    except UserError as error:
        raise ValueError(str(error)) from None
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_DIGITS = r"^[0-9a-f]{8,64}$"
_ONE_DIGEST = {"type": "string", "pattern": _DIGITS}

Digests = Annotated[
    Many[Annotated[str, Field(pattern=_DIGITS)]],
    Field(min_length=1),
    ONCE,
    BeforeValidator(_as_list),
    WithJsonSchema({"anyOf": [_ONE_DIGEST, {"type": "array", "items": _ONE_DIGEST, "minItems": 1}]}),
]


class GivenModel(Section):
    """A network that is there already. It takes pixels in [0, 1] and gives logits (docs/your_models.md)."""

    factory: Annotated[str, AfterValidator(checked_factory)]
    """What makes the network: `file.py:function`, `package.module:function`, `torchvision:resnet18:10`, a TorchScript
    file (`.pt`), a file of torch.export (`.pt2`), or a model that `save_model` wrote (`.safetensors`). Paths begin in
    the folder that Snakemake runs in; `~` and `$VAR` mean what they mean in a shell."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """File of its weights: `.safetensors`, or what torch.save wrote of a state dict. Where there are several seeds,
    `{seed}` stands for the seed in its name."""
    sha256: Digests | None = None
    """SHA-256 of the file of weights in hexadecimal digits, the first 8 or more; a list in the order of the seeds where
    there are several. Without weights it is that of the file that holds the whole model."""
    seeds: Seeds | None = None
    """Those of the experiment's `seeds` for which there are weights; all if absent."""
    reference: bool = False
    """Whether the audit compares the other models with this one, and images are transferred from it."""


Models = Annotated[dict[Name, GivenModel], Field(min_length=1)]


def given(keys: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the given models of an experiment by name; nothing for one that trains its networks."""
    models: Mapping[str, Any] = keys.get("models", {})
    return models


def with_given_models(keys: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns an experiment's keys in which the names of given models are its `rules`, and one is the reference.

    Raises UserError if the names or the reference are not sound, or a model has not the files of its seeds.
    """
    if not given(keys):
        return keys
    for name in given(keys):
        _check_name(name, f"{where}: models.{name}")
        _check_files(keys, name, f"{where}: models.{name}")
    filled = keys | {"rules": list(given(keys))}
    references = [name for name, model in given(keys).items() if model.get("reference", False)]
    if len(references) > 1:
        raise UserError(f"{where}: models: {' and '.join(references)} are both the reference; mark one of them")
    if "audit" in keys:
        filled["audit"] = keys["audit"] | {"reference": _audited(keys, references, f"{where}: audit")}
    return filled


def _audited(keys: Mapping[str, Any], references: Sequence[str], place: str) -> str:
    """Returns the model that an audit compares with. Raises UserError if none is marked, or it is alone."""
    if "reference" in keys["audit"]:
        raise UserError(f"{place}.reference: mark one of the models with `reference: true` instead; take it away here")
    if not references:
        problem = "models are compared with one of them"
        raise UserError(f"{place}: {problem}; mark that one with `reference: true` under `models`")
    if len(given(keys)) == 1:
        raise UserError(f"{place}: there is no model beside {references[0]} to compare; add one, or take `audit` away")
    return references[0]


def _check_name(name: str, place: str) -> None:
    if any(name in plugins.names(kind) for kind in ("rule", "update_rule")):
        raise UserError(f"{place}: that is the name of a learning rule, and tables would call the model so; rename it")
    if is_control(name):
        raise UserError(f"{place}: that is the name of a network matched in accuracy, or of another control; rename it")


def _check_files(keys: Mapping[str, Any], name: str, place: str) -> None:
    """Raises UserError if several seeds have one file, or a digest belongs to no file."""
    model, seeds = given(keys)[name], seeds_of(keys, name)
    for seed in model.get("seeds", []):
        if seed not in keys["seeds"]:
            raise UserError(f"{place}.seeds: {seed} is not under `seeds`")
    if len(seeds) > 1 and _SEED not in model.get("weights", ""):
        problem = f"the seeds {', '.join(map(str, seeds))} would all be the same network"
        raise UserError(
            f'{place}: {problem}; name the file of each, such as weights: "weights/{_SEED}.pt", or one seed'
        )
    digests = _as_list(model.get("sha256", []))
    if digests and len(digests) != len(seeds):
        raise UserError(f"{place}.sha256: {len(digests)} for the {len(seeds)} files of the seeds; give one for each")


def seeds_of(keys: Mapping[str, Any], name: str) -> list[int]:
    """Returns the seeds of a given model."""
    seeds: list[int] = given(keys)[name].get("seeds", keys["seeds"])
    return seeds


def reference_of(keys: Mapping[str, Any]) -> str | None:
    """Returns what networks are compared with, and transferred from: `bp`, or the given model that is marked so.

    None where there is no such model.
    """
    if given(keys):
        return next((name for name, model in given(keys).items() if model.get("reference", False)), None)
    return "bp" if "bp" in keys["rules"] else None


def factory_file(keys: Mapping[str, Any], name: str) -> Path | None:
    """Returns the file that a model's factory lies in; None for one in a module that Python finds by itself."""
    return parse_source(given(keys)[name]["factory"]).file(Path())


def weights_file(keys: Mapping[str, Any], name: str, seed: int) -> Path | None:
    """Returns the file of a model's weights; None for a model whose factory brings them."""
    text = given(keys)[name].get("weights")
    return None if text is None else as_path(text.replace(_SEED, str(seed)))


def digest(keys: Mapping[str, Any], name: str, seed: int) -> str | None:
    """Returns the SHA-256 that a model's file must have; None where it is not stated."""
    digests = _as_list(given(keys)[name].get("sha256", []))
    return digests[seeds_of(keys, name).index(seed)] if digests else None


def files_of_models(keys: Mapping[str, Any]) -> dict[Path, str]:
    """Returns the files of all given models, each with the key that names it."""
    files: dict[Path, str] = {}
    for name in given(keys):
        if path := factory_file(keys, name):
            files.setdefault(path, f"models.{name}.factory")
        for seed in seeds_of(keys, name):
            if path := weights_file(keys, name, seed):
                files.setdefault(path, f"models.{name}.weights")
    return files
