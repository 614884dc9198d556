"""Whether a record's numbers are what its outcomes say. This file needs only NumPy.

A seal can be made again after an edit. The outcome of every example lies beside the numbers, so each number that
follows from outcomes is computed from them once more.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditflow.core.files import fingerprint

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

#: Outcomes whose mean is what a record is for: it must be there, as one of these metrics.
_NEEDED = {
    "correct": ("accuracy", "robust_accuracy"),
    "ap": ("map",),
    "ap_tie_averaged": ("map_tie_averaged",),
    "flipped_bits": ("flipped_bits",),
    "nullspace_ratio": ("nullspace_ratio",),
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
    if content.get("provenance", {}).get("config_hash", fingerprint(settings)) != fingerprint(settings):
        return "its settings are not those whose hash its provenance has"
    at_end: dict[str, list[dict[str, Any]]] = {}
    for metric in content["metrics"]:
        if metric["epoch"] is None:
            at_end.setdefault(metric["metric"], []).append(metric)
    for outcome, names in _NEEDED.items():
        if outcome in outcomes and not at_end.keys() & set(names):
            return f"its outcomes have {outcome!r}, its metrics no {' or '.join(names)} at the end of training"
    for name, metrics in at_end.items():
        if contradiction := _contradiction(name, metrics, outcomes, settings):
            return contradiction
    shares = at_end.get("zero_gradient_share", [])
    if any(metric["value"] != checks.get("zero_gradients") for metric in shares):
        return "its zero_gradient_share is not what its checks say"
    return _mistake_of_stages(checks, outcomes) or _mistake_of_kept(outcomes)


def _mistake_of_stages(checks: Mapping[str, Any], outcomes: Mapping[str, NDArray[Any]]) -> str | None:
    """Returns what contradicts itself in an attack of several stages; None if nothing does, or if it has no stages."""
    if ("fooled_by" in outcomes) != ("stages" in checks):
        return "its outcomes and its checks do not name the same stages"
    if "fooled_by" not in outcomes:
        return None
    correct, fooled_by, stages = outcomes["correct"], outcomes["fooled_by"], checks["stages"]
    if fooled_by.shape != correct.shape or bool((correct & (fooled_by > 0)).any()):
        return "its fooled_by names stages for images that are classified rightly"
    if not set(np.unique(fooled_by).tolist()) <= {0, *(stage["number"] for stage in stages.values())}:
        return "its fooled_by names a stage that did not run"
    for name, stage in stages.items():
        left = (correct | (fooled_by > stage["number"])).mean(axis=1)
        if not np.allclose(left, stage["accuracy"], rtol=0, atol=1e-12):
            return f"the accuracies after its stage {name} are not what its outcomes say"
    if "square" in stages and "only_without_gradient" in checks:
        alone = (fooled_by >= stages["square"]["number"]).mean(axis=1)
        told = checks.get("at_epsilon", {}).get("only_without_gradient", alone)
        largest = math.isclose(alone.max(), checks["only_without_gradient"], abs_tol=1e-12)
        if not largest or not np.allclose(alone, told, rtol=0, atol=1e-12):
            return "its only_without_gradient is not what its outcomes say"
    return None


def _mistake_of_kept(outcomes: Mapping[str, NDArray[Any]]) -> str | None:
    """Returns what contradicts itself in the images that are kept; None if nothing does, or if none are kept."""
    if "kept_images" not in outcomes:
        return None
    predictions, labels = outcomes["kept_predictions"], outcomes["kept_labels"]
    correct = outcomes["correct"][:, : len(labels)]
    right = predictions == labels if labels.ndim == 1 else labels[np.arange(len(labels)), predictions] > 0
    if outcomes["kept_images"].shape[:2] != predictions.shape or not np.array_equal(right, correct):
        return "the predictions of its kept images are not what its outcomes say"
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
