"""Populations on disk.

`<name>.safetensors` has the chosen parameters and feedback state of each member. `<name>.json` says what the members
are and how their training went. The JSON is written last and holds the hash of the other file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.core.identity import check_identity
from creditflow.core.settings import parse
from creditflow.models.build import ModelSpec
from creditflow.populations.network import Network, Parameters, network_of
from creditflow.populations.population import Population
from creditflow.populations.settings import PopulationSettings

_FORMAT = 1
_CONTENT = ("format", "rule", "spec", "members", "measured_images", "settings", "sha256")


@dataclass(frozen=True)
class SavedPopulation:
    """A population that was read back.

    Tensors have a leading dimension for the members; `content` is the content of the JSON.
    """

    parameters: Parameters
    feedback: Parameters
    content: dict[str, Any]

    @property
    def training(self) -> PopulationSettings:
        """The settings of its training."""
        return parse(PopulationSettings, self.content["settings"]["settings"], "settings of the population")

    @property
    def network(self) -> Network:
        """The network that each member is."""
        spec, settings = ModelSpec.from_json(self.content["spec"]), self.training
        shape = spec.image_shape
        return network_of(
            math.prod(shape), settings.hidden, spec.n_classes, settings.activation, settings.convolutions, shape
        )


def save_population(path: Path, population: Population, **facts: Any) -> None:
    """Writes both files; `facts` go into the JSON as they are."""
    groups = {"parameters": population.best, "feedback": population.best_feedback}
    named = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    tensors = dump_tensors({name: value.cpu().contiguous() for name, value in named.items()})
    content = {"format": _FORMAT, "members": _described(population), "sha256": files.sha256(tensors), **facts}
    files.write_atomically(path, tensors)
    files.write_sealed_json(path.with_suffix(".json"), content)


def _described(population: Population) -> list[dict[str, Any]]:
    """Returns what the JSON says of each member."""
    return [
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


def load_population(path: Path, expected: Mapping[str, object] | None = None) -> SavedPopulation:
    """Reads both files.

    Raises UserError if one is missing, damaged or of another format, or if the population's identity lacks what is
    expected of it.
    """
    sidecar = path.with_suffix(".json")
    content = files.read_json(sidecar, "the description of a population")
    if not isinstance(content, dict) or not set(_CONTENT) <= content.keys() or content["format"] != _FORMAT:
        raise UserError(
            f"{sidecar} does not describe a population of this version; move it away and run the same command again"
        )
    check_identity(sidecar, "the population", content.get("identity"), expected)
    try:
        tensors = files.read_plain(path)
        if files.sha256(tensors) != content["sha256"]:
            raise UserError(
                f"{path} is damaged or not the file that {sidecar.name} describes;"
                " move both away and train the population again"
            )
        loaded = load_tensors(tensors)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); train the population again") from error

    def group(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in loaded.items() if key.startswith(f"{name}.")}

    return SavedPopulation(group("parameters"), group("feedback"), content)
