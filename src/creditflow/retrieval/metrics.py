"""What a record holds of a search: metrics, and the outcome of every query."""

from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from creditflow.records.record import Metric
from creditflow.retrieval.ranking import Curves, Precisions, average_precisions, curves
from creditflow.retrieval.storage import Encoded

#: Ranks at which precision is measured.
_RANKS = (1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


@dataclass(frozen=True)
class Searched:
    """What is found for queries: AP@k of each, mean precision and recall by rank and radius, and the size of the
    database."""

    precisions: Precisions
    curves: Curves
    database: int

    @property
    def map(self) -> float:
        """mAP@k in the order of the database."""
        return float(self.precisions.average.mean())


def search(queries: Encoded, database: Encoded, top: int) -> Searched:
    """Searches a database for queries; k of mAP@k is `top`, or the size of the database if that is less."""
    searched = (queries.codes, queries.labels, database.codes, database.labels)
    return Searched(average_precisions(*searched, top), curves(*searched, _RANKS), len(database.codes))


def chance(queries: Encoded, database: Encoded, top: int) -> float:
    """Returns the mAP@k to be expected of a random order: that of codes which are all the same, over all orders."""
    same = [torch.ones_like(part.codes[:, :1]) for part in (queries, database)]
    precisions = average_precisions(same[0], queries.labels, same[1], database.labels, top)
    return float(precisions.tie_averaged.mean())


def retrieval_metrics(searched: Searched) -> list[Metric]:
    """Returns mAP@k, the size of the database, precision by rank, and precision and recall by Hamming radius."""
    lines, n = searched.curves, len(searched.precisions.average)
    precision_at = zip(lines.ranks, lines.precision_at, strict=True)
    return [
        Metric("map", None, searched.map, n),
        Metric("map_tie_averaged", None, float(searched.precisions.tie_averaged.mean()), n),
        Metric("database", None, searched.database, n),
        *[Metric("precision_at", None, float(value), n, at=rank) for rank, value in precision_at],
        *[Metric("radius_precision", None, float(value), n, at=at) for at, value in enumerate(lines.radius_precision)],
        *[Metric("radius_recall", None, float(value), n, at=at) for at, value in enumerate(lines.radius_recall)],
    ]


def retrieval_outcomes(searched: Searched) -> dict[str, NDArray[Any]]:
    """Returns the outcome of every query, which are numbered in their order."""
    return {
        "ap": searched.precisions.average[None].numpy(),
        "ap_tie_averaged": searched.precisions.tie_averaged[None].numpy(),
        "example": torch.arange(len(searched.precisions.average)).numpy(),
    }
