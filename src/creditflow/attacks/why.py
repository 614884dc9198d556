"""Why an attack through some gradient succeeds or fails: where this gradient points, and where its steps lead.

An attacker differentiates a view of the model: the outputs are the model's, the gradient may be another one. Three
things are measured on the same images.

- The angle: cosine and agreement of signs between the attacker's gradient of the loss and the exact one, at the image.
- The walk: loss and accuracy of the model after 1, 2, ... sign steps along the attacker's gradient.
- The size of a step: accuracy after a fixed number of steps, for several sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from creditflow.attacks import guards
from creditflow.attacks.why_settings import WhySettings
from creditflow.data.labels import cross_entropies, is_correct
from creditflow.data.prepared import Subset
from creditflow.derivatives.frozen import frozen
from creditflow.records.record import Metric


@dataclass(frozen=True)
class Why:
    """What was measured for N images, on the CPU.

    Attributes:
        cosine: float32 (N,), cosine between the attacker's gradient and the exact one; 0 where one of them is zero.
        sign_agreement: float32 (N,), share of the pixels with a nonzero exact gradient at which the signs agree.
        loss: float32 (T + 1, N), cross-entropy of the model at the image itself, and after each number of steps.
        correct: bool (T + 1, N), whether the model is right there.
        correct_by_size: bool (D, N), whether the model is right after the steps of each size.
    """

    cosine: Tensor
    sign_agreement: Tensor
    loss: Tensor
    correct: Tensor
    correct_by_size: Tensor


def measure(model: nn.Module, view: nn.Module, data: Subset, chosen: Tensor, settings: WhySettings) -> Why:
    """Measures the gradient of a view of a model.

    Args:
        model: the model; its gradient is the exact one.
        view: what the attacker differentiates. It computes the model's outputs.
        data: images and labels, on the device of the model.
        chosen: indices (N,) of the images that are attacked.
        settings: epsilon, numbers and sizes of steps.

    Raises:
        UserError: if outputs are not finite, or are probabilities.
    """
    parts = []
    with frozen(model), frozen(view):
        for images, labels in data.batches(chosen.split(settings.batch_size)):
            parts.append(_measure_batch(model, view, images, labels, settings))
    return Why(**{name: torch.cat([part[name] for part in parts], dim=-1).cpu() for name in parts[0]})


def _measure_batch(
    model: nn.Module, view: nn.Module, images: Tensor, labels: Tensor, settings: WhySettings
) -> dict[str, Tensor]:
    with torch.no_grad():
        guards.check_outputs(model(images))
    cosine, agreement = compare_gradients(_gradient(model, images, labels)[0], _gradient(view, images, labels)[0])
    walk = _walk(view, images, labels, settings.epsilon, settings.epsilon / settings.step_divisor, [0, *settings.steps])
    by_size = [
        _walk(view, images, labels, settings.epsilon, settings.epsilon / divisor, [settings.steps_of_divisors])
        for divisor in settings.divisors
    ]
    return {
        "cosine": cosine,
        "sign_agreement": agreement,
        "loss": torch.stack([loss for loss, _ in walk]),
        "correct": torch.stack([correct for _, correct in walk]),
        "correct_by_size": torch.stack([correct for ((_, correct),) in by_size]),
    }


def compare_gradients(exact: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Returns cosine (N,) and agreement of signs (N,) of two gradients (N, C, H, W), as `Why` describes them."""
    first, second = exact.flatten(1).double(), other.flatten(1).double()
    lengths = first.norm(dim=1) * second.norm(dim=1)
    cosine = torch.where(lengths > 0, (first * second).sum(1) / lengths.clamp(min=1e-300), 0.0)
    counted = first != 0
    agreeing = ((first.sign() == second.sign()) & counted).sum(1)
    return cosine.clamp(-1, 1).float(), (agreeing / counted.sum(1).clamp(min=1)).float()


def _gradient(view: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradient of the loss (N, C, H, W), the loss (N,), and whether the model is right (N,)."""
    x = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        outputs = view(x)
        losses = cross_entropies(outputs, labels)
        (gradient,) = torch.autograd.grad(losses.sum(), x)
    return gradient, losses.detach(), is_correct(outputs.detach(), labels)


def _walk(
    view: nn.Module, images: Tensor, labels: Tensor, epsilon: float, step: float, counts: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """Takes sign steps along the view's gradient; returns loss (N,) and correctness (N,) after each number of steps."""
    low, high = (images - epsilon).clamp(min=0), (images + epsilon).clamp(max=1)
    current, measured = images, []
    for count in range(counts[-1] + 1):
        gradient, losses, correct = _gradient(view, current, labels)
        if count in counts:
            guards.check_finite(losses[:, None])
            measured.append((losses, correct))
        current = (current + step * gradient.sign()).maximum(low).minimum(high)
    return measured


def why_metrics(why: Why, settings: WhySettings) -> list[Metric]:
    """Returns the means over the images; `at` is a number of steps, or the divisor of epsilon that gives the step."""
    n, epsilon = len(why.cosine), settings.epsilon
    metrics = [
        Metric("gradient_cosine", None, float(why.cosine.double().mean()), n),
        Metric("gradient_sign_agreement", None, float(why.sign_agreement.double().mean()), n),
    ]
    rows = {
        "loss_after_steps": ([0, *settings.steps], why.loss),
        "accuracy_after_steps": ([0, *settings.steps], why.correct),
        "accuracy_by_step_divisor": (settings.divisors, why.correct_by_size),
    }
    return metrics + [
        Metric(name, epsilon, float(row.double().mean()), n, at=at)
        for name, (places, values) in rows.items()
        for at, row in zip(places, values, strict=True)
    ]


def why_outcomes(why: Why, chosen: Tensor) -> dict[str, NDArray[Any]]:
    """Returns what was measured for every image; `chosen` (N,) are the indices of the images."""
    tensors = {
        "gradient_cosine": why.cosine,
        "gradient_sign_agreement": why.sign_agreement,
        "loss_after_steps": why.loss,
        "correct_after_steps": why.correct,
        "correct_by_step_divisor": why.correct_by_size,
        "example": chosen,
    }
    return {name: tensor.numpy() for name, tensor in tensors.items()}
