"""Boundary Attack (Brendel et al., 2018): a random walk along the decision boundary, towards the image; L2."""

from collections.abc import Sequence
from unittest.mock import patch

import eagerpy as ep
import foolbox
import torch
from foolbox.attacks import boundary_attack

from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.foolbox_adapter import smallest_l2
from creditflow.attacks.methods.settings.boundary import Settings


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
    """Returns proposals that are nearer to the originals, and proposals on the sphere around them.

    This is foolbox's function of the same name, with a direction for each image. foolbox draws one direction for the
    whole batch, so that the outcome for an image depends on its neighbours.
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


ATTACK = Attack(norm="l2", uses_gradient=False, propose=propose, uses_pool=True, multi_label=True)
