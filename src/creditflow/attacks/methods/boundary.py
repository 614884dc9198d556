"""Boundary Attack (Brendel et al., 2018): a random walk along the decision boundary, towards the image; L2."""

from collections.abc import Sequence
from dataclasses import dataclass
from unittest.mock import patch

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks import boundary_attack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest_l2


@dataclass(frozen=True)
class Settings:
    """steps: of the walk, about one query each; foolbox's default is 25,000."""

    steps: int = 25000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


def draw_proposals(
    bounds: tuple[float, float],
    originals: ep.Tensor,
    perturbed: ep.Tensor,
    unnormalized_source_directions: ep.Tensor,
    source_directions: ep.Tensor,
    source_norms: ep.Tensor,
    spherical_steps: ep.Tensor,
    source_steps: ep.Tensor,
) -> tuple[ep.Tensor, ep.Tensor]:
    """Returns proposals nearer to the originals, and on the sphere around them: foolbox's function of this name, with a
    direction for each image.

    foolbox draws one direction for the whole batch, so that what an image meets depends on its neighbours.
    """
    x, away = originals.raw.flatten(1), unnormalized_source_directions.raw.flatten(1)
    unit, norms = source_directions.raw.flatten(1), source_norms.raw[:, None]
    around, towards = spherical_steps.raw[:, None], source_steps.raw[:, None]
    eta = torch.randn_like(x)
    eta = eta - (eta * unit).sum(1, keepdim=True) * unit
    eta = eta * around * norms / eta.norm(dim=1, keepdim=True)
    on_sphere = (x + (eta - away) / (around.square() + 1).sqrt()).clamp(*bounds)
    back = x - on_sphere
    distance = back.norm(dim=1, keepdim=True)
    nearer = on_sphere + (towards * norms + distance - norms).clamp(min=0) / distance * back
    shape = originals.shape
    return ep.astensor(nearer.clamp(*bounds).reshape(shape)), ep.astensor(on_sphere.reshape(shape))


def propose(problem: Problem, epsilons: Sequence[float], settings: Settings) -> Candidates:
    """Needs only the model's decisions."""
    with patch.object(boundary_attack, "draw_proposals", draw_proposals):
        return smallest_l2(foolbox.attacks.BoundaryAttack(steps=settings.steps), problem, epsilons)


ATTACK = Attack(norm="l2", uses_gradient=False, settings=Settings, propose=propose, uses_pool=True, multi_label=True)
