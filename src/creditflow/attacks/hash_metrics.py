"""What a record holds of an attack on hash codes: metrics, outcomes of every query, checks and pictures."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from creditflow.attacks.hash_judge import HashAttackResult, Queries
from creditflow.data.prepared import Subset
from creditflow.records.record import Metric
from creditflow.retrieval.gallery import gallery
from creditflow.retrieval.ranking import Precisions, average_precisions
from creditflow.retrieval.storage import Encoded


@dataclass(frozen=True)
class Searched:
    """What is found in a database for attacked queries.

    Attributes:
        result: outcomes of the attack.
        labels: labels of the attacked queries, int64 (N,) or zeros and ones (N, C).
        database: codes and labels of what is searched.
        precisions: AP@k of the queries at each epsilon.
        inverted: AP@k of the clean codes with all bits flipped.
        flipped: float32 (E, N), share of its bits that each query lost.
    """

    result: HashAttackResult
    labels: Tensor
    database: Encoded
    precisions: list[Precisions]
    inverted: Precisions
    flipped: Tensor


def search(result: HashAttackResult, labels: Tensor, database: Encoded, top: int) -> Searched:
    """Searches a database for attacked queries with these labels.

    k of AP@k is `top`, or the size of the database if that is less.
    """

    def found_for(codes: Tensor) -> Precisions:
        return average_precisions(codes, labels, database.codes, database.labels, top)

    precisions = [found_for(codes) for codes in result.codes]
    flipped = (result.codes != result.clean_codes).float().mean(2)
    return Searched(result, labels, database, precisions, found_for(-result.clean_codes), flipped)


def hash_attack_metrics(searched: Searched) -> list[Metric]:
    """Returns mAP, flipped bits and sizes of perturbations at each epsilon."""
    metrics: list[Metric] = []
    n = len(searched.labels)
    for index, epsilon in enumerate(searched.result.epsilons):
        precisions, sizes = searched.precisions[index], searched.result.perturbation[index]
        metrics += [
            Metric("map", epsilon, float(precisions.average.mean()), n),
            Metric("map_tie_averaged", epsilon, float(precisions.tie_averaged.mean()), n),
            Metric("flipped_bits", epsilon, float(searched.flipped[index].mean()), n),
            Metric("median_perturbation", epsilon, float(sizes.median()), n),
            Metric("largest_perturbation", epsilon, float(sizes.max()), n),
        ]
    return metrics


def hash_attack_outcomes(searched: Searched, queries: Queries, items: Subset) -> dict[str, NDArray[Any]]:
    """Returns the outcome of every query, and pictures of the shown ones; `items` are the images of the database."""
    outcomes = {
        "ap": torch.stack([precisions.average for precisions in searched.precisions]),
        "ap_tie_averaged": torch.stack([precisions.tie_averaged for precisions in searched.precisions]),
        "flipped_bits": searched.flipped,
        "perturbation": searched.result.perturbation,
        "example": queries.chosen,
    }
    return {name: tensor.numpy() for name, tensor in (outcomes | _pictures(searched, queries, items)).items()}


def _pictures(searched: Searched, queries: Queries, items: Subset) -> dict[str, Tensor]:
    result, shown = searched.result, searched.result.shown
    if shown is None:
        return {}
    places = torch.tensor(shown.places)
    attacked = result.codes[result.epsilons.index(shown.epsilon)]
    return gallery(
        queries.data,
        items,
        queries.chosen[places],
        result.examples,
        Encoded(result.clean_codes[places], searched.labels[places]),
        Encoded(attacked[places], searched.labels[places]),
        searched.database,
    )


def hash_attack_checks(searched: Searched) -> dict[str, float | None]:
    """Returns what tells a weak attack from a robust network, and at which epsilon the pictures are."""
    result = searched.result
    return {
        "mean_output": result.mean_output,
        "zero_gradients": result.zero_gradients,
        "map_of_inverted_codes": float(searched.inverted.average.mean()),
        "shown_epsilon": result.shown.epsilon if result.shown is not None else None,
    }


def summary_lines(searched: Searched) -> list[str]:
    """Returns a line for each epsilon, for the terminal."""
    per_epsilon = zip(searched.result.epsilons, searched.precisions, searched.result.perturbation, strict=True)
    return [
        f"epsilon {epsilon}: mAP@{precisions.k} {float(precisions.average.mean()):.1%},"
        f" largest perturbation {float(sizes.max()):.4f}"
        for epsilon, precisions, sizes in per_epsilon
    ]
