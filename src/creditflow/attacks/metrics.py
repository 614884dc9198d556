"""What a record holds of an attack on a classifier: metrics, and the outcomes of every image."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from creditflow.attacks.batch import AttackResult
from creditflow.records.record import Metric


def attack_metrics(result: AttackResult, epsilons: Sequence[float]) -> list[Metric]:
    """Returns robust accuracy at each epsilon, queries, and the median distance of attacks that measure one."""
    n = len(result.clean_correct)
    metrics = [
        Metric("robust_accuracy", epsilon, accuracy, n)
        for epsilon, accuracy in zip(epsilons, robust_accuracies(result), strict=True)
    ]
    metrics.append(Metric("queries_per_image", None, result.queries_per_image, n))
    if "zero_gradients" in result.checks:
        metrics.append(Metric("zero_gradient_share", None, result.checks["zero_gradients"], n))
    # The median is over all images, with an infinite distance where no adversarial image was found. Over the fooled
    # images alone, the more robust model could seem the weaker one.
    median = float(result.distance.double().median()) if result.distance is not None else float("inf")
    if median < float("inf"):
        metrics.append(Metric("median_distance", None, median, n))
    return metrics


def robust_accuracies(result: AttackResult) -> list[float]:
    """Returns the share of the images that are classified correctly at each epsilon."""
    return [float(correct.double().mean()) for correct in result.correct]


def attack_outcomes(result: AttackResult, chosen: Tensor) -> dict[str, NDArray[Any]]:
    """Returns the outcome of every image, and the images that are kept.

    `chosen` (N,) are the indices of the attacked images.
    """
    outcomes = {"correct": result.correct, "perturbation": result.perturbation, "example": chosen}
    if result.distance is not None:
        outcomes["distance"] = result.distance
    if result.fooled_by is not None:
        outcomes["fooled_by"] = result.fooled_by
    if result.kept is not None:
        outcomes |= result.kept.outcomes()
    return {name: tensor.numpy() for name, tensor in outcomes.items()}
