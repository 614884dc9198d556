"""Populations on disk: `<name>.safetensors` with each member's chosen parameters and feedback state, and `<name>.json`, which says
what the members are and how they fared. The JSON is written last and holds the other's hash."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.core.settings import parse
from creditflow.models.build import ModelSpec
from creditflow.populations.network import Network, Parameters, network_of
from creditflow.populations.population import Population
from creditflow.populations.settings import PopulationSettings

_FORMAT = 1
_CONTENT = ("format", "rule", "spec", "members", "measured_images", "settings", "sha256")


@dataclass(frozen=True)
class SavedPopulation:
    """A population as read back: tensors have a leading dimension for the members, `content` is the JSON's."""

    parameters: Parameters
    feedback: Parameters
    content: dict[str, Any]

    @property
    def training(self) -> PopulationSettings:
        """How it was trained."""
        return parse(PopulationSettings, self.content["settings"]["settings"], "settings of the population")

    @property
    def network(self) -> Network:
        """What its members are."""
        spec, settings = ModelSpec.from_json(self.content["spec"]), self.training
        shape = spec.image_shape
        return network_of(
            math.prod(shape), settings.hidden, spec.n_classes, settings.activation, settings.convolutions, shape
        )


def save_population(path: Path, population: Population, **facts: Any) -> None:
    """Writes both files; `facts` go into the JSON as they are."""
    groups = {"parameters": population.best, "feedback": population.best_feedback}
    tensors = dump_tensors(
        {f"{group}.{name}": one.cpu().contiguous() for group, its in groups.items() for name, one in its.items()}
    )
    members = [
        {
            "seed": member.seed,
            "learning_rate": member.learning_rate,
            "best_epoch": int(population.best_epoch[index]),
            "best_score": float(population.best_score[index]),
            "diverged_at_step": int(population.diverged[index]),
            "norm": float(population.norm[index]),
            "stopped_after_epoch": int(population.stopped[index]),
            "history": population.history[index],
        }
        for index, member in enumerate(population.members)
    ]
    files.write_atomically(path, tensors)
    files.write_sealed_json(
        path.with_suffix(".json"), {"format": _FORMAT, "members": members, "sha256": files.sha256(tensors), **facts}
    )


def load_population(path: Path) -> SavedPopulation:
    """Reads both files. Raises UserError if one is missing, damaged or of another format."""
    sidecar = path.with_suffix(".json")
    content = files.read_json(sidecar, "the description of a population")
    if not isinstance(content, dict) or not set(_CONTENT) <= content.keys() or content["format"] != _FORMAT:
        raise UserError(
            f"{sidecar} does not describe a population of this version; delete it and run the same command again"
        )
    try:
        tensors = path.read_bytes()
        if files.sha256(tensors) != content["sha256"]:
            raise UserError(
                f"{path} is damaged or not the file that {sidecar.name} describes; delete both and train the population again"
            )
        loaded = load_tensors(tensors)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); train the population again") from error

    def group(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in loaded.items() if key.startswith(f"{name}.")}

    return SavedPopulation(group("parameters"), group("feedback"), content)
