"""Whether a record's numbers are what its outcomes say. This file needs only NumPy.

A seal can be made again after an edit. The outcome of every example lies beside the numbers, so each number that
follows from outcomes is computed from them once more.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Agreement of two means of the same numbers that were added in another order, relative to the largest of them.
_TOLERANCE = {"float32": 1e-5, "float64": 1e-12, "bool": 1e-12}


def _mean(row: NDArray[Any]) -> float:
    return float(row.mean(dtype=np.float64))


def _deviation(row: NDArray[Any]) -> float:
    return float(row.std(ddof=1, dtype=np.float64)) if len(row) > 1 else math.nan


def _median(row: NDArray[Any]) -> float:
    """Returns the lower median, as torch does."""
    middle = (len(row) - 1) // 2
    return float(np.partition(row, middle)[middle])


def _largest(row: NDArray[Any]) -> float:
    return float(row.max())


#: Metrics with a value for each row of an outcome, which are (epsilons, examples): the outcome, and what of it.
_OF_ROWS: dict[str, tuple[str, Callable[[NDArray[Any]], float]]] = {
    "accuracy": ("correct", _mean),
    "robust_accuracy": ("correct", _mean),
    "map": ("ap", _mean),
    "map_tie_averaged": ("ap_tie_averaged", _mean),
    "flipped_bits": ("flipped_bits", _mean),
    "median_perturbation": ("perturbation", _median),
    "largest_perturbation": ("perturbation", _largest),
}

#: Metrics with one value for an outcome (examples,).
_OF_ALL: dict[str, tuple[str, Callable[[NDArray[Any]], float]]] = {
    "median_distance": ("distance", _median),
    "nullspace_ratio": ("nullspace_ratio", _mean),
    "nullspace_ratio_deviation": ("nullspace_ratio", _deviation),
}

#: Settings that repeat a key.
_REPEATED = ("rule", "attack", "gradient")


def mistake(content: Mapping[str, Any], outcomes: Mapping[str, NDArray[Any]]) -> str | None:
    """Returns what contradicts itself in a record, in words; None if nothing does.

    Args:
        content: the content of its JSON file.
        outcomes: arrays by name.

    Raises:
        KeyError, TypeError, ValueError: if the content is not that of a record.
    """
    settings, checks = content.get("settings", {}), content.get("checks", {})
    for key in _REPEATED:
        if settings.get(key, content["keys"][key]) != content["keys"][key]:
            return f"its keys say {key} {content['keys'][key]}, its settings say {settings[key]}"
    at_end: dict[str, list[dict[str, Any]]] = {}
    for metric in content["metrics"]:
        if metric["epoch"] is None:
            at_end.setdefault(metric["metric"], []).append(metric)
    for name, metrics in at_end.items():
        if found := _contradiction(name, metrics, outcomes, settings):
            return found
    shares = at_end.get("zero_gradient_share", [])
    if any(metric["value"] != checks.get("zero_gradients") for metric in shares):
        return "its zero_gradient_share is not what its checks say"
    return None


def _contradiction(
    name: str, metrics: list[dict[str, Any]], outcomes: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
) -> str | None:
    """Returns what is wrong with the values of one metric; None for a metric that no outcome determines."""
    if name in _OF_ROWS:
        outcome, statistic = _OF_ROWS[name]
        rows = list(outcomes.get(outcome, np.empty((0, 0))))
        epsilons = [metric["epsilon"] for metric in metrics]
        if epsilons != [None] and epsilons != settings.get("epsilons", epsilons):
            return f"its values of {name} are at the epsilons {epsilons}, its settings say {settings['epsilons']}"
    elif name in _OF_ALL:
        outcome, statistic = _OF_ALL[name]
        rows = [outcomes[outcome]] if outcome in outcomes else []
    else:
        return None
    examples = outcomes.get("example")
    if len(rows) != len(metrics) or any(row.ndim != 1 or not len(row) for row in rows):
        return "its outcomes do not belong to its metrics"
    for metric, row in zip(metrics, rows, strict=True):
        if metric["n"] != len(row) or (examples is not None and len(examples) != len(row)):
            return f"its {name} says n {metric['n']}, its outcomes have {len(row)} examples"
        value = statistic(row)
        tolerance = _TOLERANCE.get(row.dtype.name, 1e-12)
        if not math.isclose(metric["value"], value, rel_tol=tolerance, abs_tol=tolerance):
            where = "" if metric["epsilon"] is None else f" at epsilon {metric['epsilon']:g}"
            return f"its {name}{where} is {metric['value']}, its outcomes say {value}"
    return None
