"""Signs that an attack's number means less than it seems (Carlini et al., 2019; Croce et al., 2020), for each record."""

from itertools import pairwise

import torch
from torch import Tensor

from creditflow.attacks.attack import Problem
from creditflow.core.errors import UserError
from creditflow.data.labels import logits_ratio


def check_outputs(logits: Tensor) -> None:
    """Raises UserError for outputs that no attack can work on: not finite, or probabilities instead of logits."""
    if not bool(logits.isfinite().all()):
        raise UserError("the model's outputs are not finite (NaN or infinite): its weights are broken, train it again")
    sums = logits.double().sum(1)
    if float(logits.min()) >= 0 and bool(((sums - 1).abs() < 1e-4).all()):
        raise UserError("the model seems to output probabilities, but attacks need logits: remove its softmax")


def check_images(images: Tensor) -> None:
    """Raises UserError unless images are bytes: others would not come out in [0, 1], where all attacks look for pixels."""
    if images.dtype != torch.uint8:
        raise UserError(f"images must be uint8 from 0 to 255, not {str(images.dtype).removeprefix('torch.')}")


def check_epsilons(epsilons: "list[float] | tuple[float, ...]") -> None:
    """Raises UserError unless epsilons are finite, at least 0, and rise."""
    if not epsilons or any(not 0 <= epsilon < float("inf") for epsilon in epsilons):
        raise UserError(f"epsilons must be finite numbers of at least 0, not {list(epsilons)}")
    if any(later <= earlier for earlier, later in pairwise(epsilons)):
        raise UserError(f"epsilons must rise, each once, not {list(epsilons)}")


def observe(problem: Problem, *, gradient: bool) -> dict[str, Tensor]:
    """Returns per-image signs (N,) for one batch; those of the loss and its gradient only where asked for."""
    with torch.no_grad():
        again = problem.model(problem.images)
    seen = {"outputs_differ": (again != problem.logits).any(1)}
    if gradient:
        loss, slope = problem.loss_and_gradient
        flat = slope.flatten(1)
        seen["loss_is_zero"] = loss == 0
        seen["gradient_is_zero"] = (flat == 0).all(1) & ~_constant_by_definition(problem)
        seen["zero_pixels"] = (flat == 0).double().mean(1)
        seen["gradient_is_not_finite"] = ~flat.isfinite().all(1)
    return {name: values.cpu() for name, values in seen.items()}


def _constant_by_definition(problem: Problem) -> Tensor:
    """Returns bool (N,): the difference of logits ratio is 1 wherever the label ranks third, which is wrong without an attack."""
    if problem.loss is not logits_ratio:
        return torch.zeros(len(problem.labels), dtype=torch.bool, device=problem.labels.device)
    return problem.logits.topk(3, dim=1).indices[:, 2] == problem.labels


#: What each sign is called in a record's `checks`: a share of images, of pixels for the last one.
_SHARES = {
    "outputs_differ": "randomised_outputs",
    "loss_is_zero": "saturated_loss",
    "gradient_is_zero": "zero_gradients",
    "gradient_is_not_finite": "nonfinite_gradients",
    "zero_pixels": "zero_gradient_pixels",
}


def summarise(seen: dict[str, Tensor]) -> dict[str, float]:
    """Returns each sign's share of the images."""
    return {_SHARES[name]: float(values.double().mean()) for name, values in seen.items()}
