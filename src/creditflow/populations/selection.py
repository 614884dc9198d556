"""Which of a population's learning rates is taken, and a member as an ordinary model."""

from typing import Any

import torch

from creditflow.core.errors import UserError
from creditflow.models.build import ImageClassifier, ModelSpec
from creditflow.populations.storage import SavedPopulation


def scores(saved: SavedPopulation) -> dict[float, float]:
    """Returns for each learning rate the mean over seeds of what members are chosen by; none where a member diverged."""
    members = saved.content["members"]
    diverged = {member["learning_rate"] for member in members if member["diverged_at_step"]}
    rates = sorted({member["learning_rate"] for member in members} - diverged)
    of_rate = {rate: [member["best_score"] for member in members if member["learning_rate"] == rate] for rate in rates}
    return {rate: sum(found) / len(found) for rate, found in of_rate.items()}


def chosen_rate(saved: SavedPopulation, where: str) -> float:
    """Returns the learning rate with the best score, of equal ones the smallest. Raises UserError if all diverged."""
    found = scores(saved)
    if not found:
        steps = sorted(member["diverged_at_step"] for member in saved.content["members"] if member["diverged_at_step"])
        raise UserError(
            f"{where}: at every learning rate a member diverged, the first at step {steps[0]}; lower the learning rates"
        )
    return max(found, key=lambda rate: (found[rate], -rate))


def member_model(saved: SavedPopulation, index: int) -> ImageClassifier:
    """Returns a member as a model of backbone `mlp`, in float32, with the parameters of its best epoch."""
    model = ImageClassifier(ModelSpec.from_json(saved.content["spec"]))
    layers: list[Any] = [layer for layer in model.backbone if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)] + [
        model.head
    ]
    with torch.no_grad():
        for number, layer in enumerate(layers, 1):
            layer.weight.copy_(saved.parameters[f"weight{number}"][index])
            layer.bias.copy_(saved.parameters[f"bias{number}"][index])
    return model.eval()
