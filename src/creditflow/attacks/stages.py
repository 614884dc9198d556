"""What a record says of an attack of several stages."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from creditflow.attacks import guards
from creditflow.attacks.attack import Stage

#: Facts of gradients, of which the worst one over stages counts.
_WORST = ("saturated_loss", "zero_gradients", "nonfinite_gradients", "zero_gradient_pixels")


def stage_checks(stages: Mapping[str, Stage], correct: Tensor, fooled_by: Tensor) -> dict[str, Any]:
    """Returns the checks of an attack with these stages, whose signs are those of all images.

    `stages` has for each stage its number in `fooled_by`, the accuracy that it leaves at each epsilon, and what its
    gradient showed. The shares of zero, not finite and saturated gradients are the worst over stages that no scale of
    the logits can blind, or over all with gradients where there are no such stages. `only_without_gradient` is the
    largest share, over epsilons, of images that fell to a stage without gradients after all with gradients had failed;
    `at_epsilon` has the share at each epsilon.

    Args:
        stages: the stages that ran, in their order.
        correct: bool (K, N), whether the model still predicts the true label at epsilon k.
        fooled_by: uint8 (K, N), the number of the stage that fooled the model, or 0.
    """
    facts = {name: _facts(stage, correct, fooled_by) for name, stage in stages.items()}
    checks: dict[str, Any] = {"stages": facts}
    observed = [name for name, stage in stages.items() if stage.signs is not None]
    watched = [name for name in observed if stages[name].scale_free] or observed
    if watched:
        checks |= {fact: max(facts[name][fact] for name in watched) for fact in _WORST}
    last_gradient = max((stage.number for stage in stages.values() if stage.uses_gradient), default=0)
    if last_gradient and any(stage.number > last_gradient for stage in stages.values()):
        shares = (fooled_by > last_gradient).double().mean(1).tolist()
        checks |= {"only_without_gradient": max(shares), "at_epsilon": {"only_without_gradient": shares}}
    return checks


def _facts(stage: Stage, correct: Tensor, fooled_by: Tensor) -> dict[str, Any]:
    left = (correct | (fooled_by > stage.number)).double().mean(1)
    signs = {} if stage.signs is None else guards.summarise(stage.signs)
    return {"number": stage.number, "accuracy": left.tolist(), **signs}


def join_stages(batches: Sequence[Mapping[str, Stage]]) -> dict[str, Stage]:
    """Returns the stages with the signs of all batches."""
    return {
        name: replace(stage, signs=_join_signs([batch[name] for batch in batches]))
        for name, stage in batches[0].items()
    }


def _join_signs(parts: Sequence[Stage]) -> dict[str, Tensor] | None:
    signs = [part.signs for part in parts if part.signs is not None]
    return guards.join_signs(signs) if signs else None


def final(fooled_by: Tensor, correct: Tensor) -> Tensor:
    """Returns `fooled_by` (K, N) without images that the judge finds standing, whose decision is the last word."""
    return torch.where(correct, 0, fooled_by)
