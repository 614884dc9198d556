"""Choice of a population's learning rate, and a member as an ordinary model."""

from typing import Any

import torch

from creditflow.core.errors import UserError
from creditflow.models.build import ImageClassifier, ModelSpec
from creditflow.populations.storage import SavedPopulation


def scores(saved: SavedPopulation) -> dict[float, float]:
    """Returns for each learning rate the mean over seeds of the score that members are chosen by.

    Learning rates at which a member diverged are left out.
    """
    members = saved.content["members"]
    diverged = {member["learning_rate"] for member in members if member["diverged_at_step"]}
    rates = sorted({member["learning_rate"] for member in members} - diverged)
    scores_at = {
        rate: [member["best_score"] for member in members if member["learning_rate"] == rate] for rate in rates
    }
    return {rate: sum(values) / len(values) for rate, values in scores_at.items()}


def chosen_rate(saved: SavedPopulation, where: str) -> float:
    """Returns the learning rate with the best score; among equally good ones the smallest.

    Raises UserError if a member diverged at every learning rate.
    """
    score_at = scores(saved)
    if not score_at:
        steps = sorted(member["diverged_at_step"] for member in saved.content["members"] if member["diverged_at_step"])
        raise UserError(
            f"{where}: at every learning rate a member diverged, the first at step {steps[0]}; lower the learning rates"
        )
    return max(score_at, key=lambda rate: (score_at[rate], -rate))


def member_index(saved: SavedPopulation, seed: int, rate: float, where: str) -> int:
    """Returns the place of the member with this seed and learning rate. Raises UserError if there is none."""
    members = saved.content["members"]
    for index, member in enumerate(members):
        if (member["seed"], member["learning_rate"]) == (seed, rate):
            return index
    raise UserError(f"{where} has no seed {seed}; it has {sorted({member['seed'] for member in members})}")


def member_model(saved: SavedPopulation, index: int) -> ImageClassifier:
    """Returns a member as a model of backbone `mlp`, in float32, with the parameters of its best epoch."""
    model = ImageClassifier(ModelSpec.from_json(saved.content["spec"]))
    layers: list[Any] = [layer for layer in model.backbone if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)]
    layers.append(model.head)
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            layer.weight.copy_(saved.parameters[f"weight{number}"][index])
            layer.bias.copy_(saved.parameters[f"bias{number}"][index])
    return model.eval()
