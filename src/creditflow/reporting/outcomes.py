"""Accuracies of networks against attackers, on the images that all of them have in common.

The frame of the source "outcomes" has a row per record, with its keys and, as `record`, the record itself.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.core.errors import UserError
from creditflow.core.gradients import parse_gradient
from creditflow.records.record import Record
from creditflow.verdict.statistics import INTERVAL, accuracy

#: Columns of a matrix in long form. `condition` is an attacker's gradient without the number of its draw; it is "none"
#: for the accuracy without an attack.
COLUMNS = [
    *("dataset", "backbone", "rule", "attack", "condition", "epsilon", "norm", "value", "low", "high"),
    *("n_images", "n_seeds", "n_draws", "chance", "interval"),
]

_NETWORK = ["dataset", "backbone"]


def accuracy_matrix(
    frame: pd.DataFrame, attack: str, epsilon: float, what: str, kinds: Collection[str]
) -> pd.DataFrame:
    """Returns the accuracy of each rule's networks without an attack, and under each attacker's gradient.

    An image counts as right under an attack if the network is right both without the attack and under it, as in the
    audit. All accuracies of one dataset and backbone rest on the images that all of these records have. Several draws
    of fresh feedback weights are averaged, image by image.

    Args:
        frame: the frame of outcomes: records of the attack, and those of `evaluate`.
        attack: the attack's id.
        epsilon: size of the perturbation.
        what: the table or figure, for messages.
        kinds: the kinds of attackers' gradients that it can show (see `core.gradients`).

    Returns:
        Rows in long form; the columns are `COLUMNS`.

    Raises:
        UserError: if the attack uses another kind of gradient, if a record was not attacked at this epsilon or has no
            clean record beside it, if the records have no image in common, or if not all seeds were attacked through
            all draws of a path.
    """
    rows: list[dict[str, Any]] = []
    for place, records in frame.groupby(_NETWORK, sort=True):
        attacked = records[records.attack == attack]
        if attacked.empty:
            continue
        _check_kinds(attacked, kinds, what)
        clean = records[records.attack == "clean"]
        images = common_images([*attacked.record, *clean.record], what)
        network = dict(zip(_NETWORK, place, strict=True)) | {"attack": attack}
        for rule, of_rule in attacked.groupby("rule", sort=True):
            clean_records = list(clean[(clean.rule == rule) & clean.seed.isin(set(of_rule.seed))].record)
            rows += [network | {"rule": rule} | row for row in _rows(of_rule, clean_records, images, epsilon, what)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_kinds(attacked: pd.DataFrame, kinds: Collection[str], what: str) -> None:
    for gradient in dict.fromkeys(attacked.gradient):
        if parse_gradient(gradient).kind not in kinds:
            attack = attacked.attack.iloc[0]
            raise UserError(f"{what}: it can't show {attack}, whose gradient is {gradient!r}; choose another `attack`")


def without_draw(gradient: str) -> str:
    """Returns the name of a gradient without the number of its draw: all draws of a path are one condition."""
    return str(replace(parse_gradient(gradient), draw=1))


def common_images(records: Sequence[Record], what: str) -> NDArray[np.int64]:
    """Returns the sorted numbers of the images that all records have. Raises UserError if there is none."""
    images = set.intersection(*(set(record.outcomes["example"].tolist()) for record in records))
    if not images:
        raise UserError(f"{what}: its records have no image in common; make them again with the same experiment")
    return np.array(sorted(images))


def on_images(record: Record, outcome: NDArray[Any], images: NDArray[np.int64]) -> NDArray[Any]:
    """Returns the outcomes of some images, of a record's outcomes whose last axis is examples."""
    order = np.argsort(record.outcomes["example"])
    places = order[np.searchsorted(record.outcomes["example"], images, sorter=order)]
    chosen: NDArray[Any] = outcome[..., places]
    return chosen


def row_of_epsilon(record: Record, epsilon: float, what: str) -> int:
    """Returns which row of a record's outcomes belongs to an epsilon. Raises UserError if none does."""
    sizes = [metric.epsilon for metric in record.metrics if metric.metric == "robust_accuracy"]
    for index, size in enumerate(sizes):
        if size is not None and abs(size - epsilon) < 1e-12:
            return index
    keys = record.keys
    known = ", ".join(f"{size:g}" for size in sizes if size is not None)
    raise UserError(
        f"{what}: {keys.attack} with the gradient {keys.gradient} attacked {keys.rule} at the epsilons {known},"
        f" not at {epsilon:g}; change the setting `epsilon`, or the epsilons of the attack"
    )


def _rows(
    attacked: pd.DataFrame, clean: Sequence[Record], images: NDArray[np.int64], epsilon: float, what: str
) -> Iterator[dict[str, Any]]:
    """Yields the rows of one rule on one dataset and backbone: without an attack, then of each gradient."""
    right = {record.keys.seed: on_images(record, record.outcomes["correct"][0], images) for record in clean}
    facts = {"epsilon": epsilon, "norm": attacked.record.iloc[0].content["settings"]["norm"], "chance": _chance(clean)}
    seeds = sorted(set(attacked.seed))
    missing = sorted(set(seeds) - set(right))
    if missing:
        rule = attacked.rule.iloc[0]
        raise UserError(f"{what}: {rule} has no clean record of seed {missing[0]}; name the record of `evaluate`, too")
    yield facts | {"condition": "none", "n_draws": 1} | _statistics(np.stack([right[seed] for seed in seeds]))
    conditions = attacked.gradient.map(without_draw)
    for condition in dict.fromkeys(conditions):
        outcomes = _outcomes(attacked[conditions == condition], right, images, epsilon, what)
        yield facts | {"condition": condition, "n_draws": len(outcomes)} | _statistics(_averaged(outcomes))


def _outcomes(
    attacked: pd.DataFrame, clean: Mapping[int, NDArray[Any]], images: NDArray[np.int64], epsilon: float, what: str
) -> list[NDArray[np.bool_]]:
    """Returns the outcomes (seeds, images) of each draw of one path."""
    draws = []
    for _, records in attacked.groupby("gradient", sort=True):
        by_seed = {record.keys.seed: record for record in records.record}
        if set(by_seed) != set(attacked.seed):
            raise UserError(f"{what}: not all seeds of {records.rule.iloc[0]} were attacked through the same draws")
        draws.append(np.stack([_right(by_seed[seed], clean[seed], images, epsilon, what) for seed in sorted(by_seed)]))
    return draws


def _right(
    record: Record, clean: NDArray[Any], images: NDArray[np.int64], epsilon: float, what: str
) -> NDArray[np.bool_]:
    correct = on_images(record, record.outcomes["correct"][row_of_epsilon(record, epsilon, what)], images)
    right: NDArray[np.bool_] = correct & clean
    return right


def _averaged(draws: Sequence[NDArray[np.bool_]]) -> NDArray[Any]:
    """Returns outcomes (seeds, images) as they are, or the mean of several draws'."""
    return draws[0] if len(draws) == 1 else np.mean(draws, axis=0)


def _statistics(outcomes: NDArray[Any]) -> dict[str, Any]:
    """Returns the mean of outcomes (seeds, images), its interval, and what they rest on."""
    estimate = accuracy(outcomes)
    n_seeds, n_images = outcomes.shape
    numbers = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return numbers | {"n_images": n_images, "n_seeds": n_seeds, "interval": INTERVAL}


def _chance(clean: Sequence[Record]) -> float:
    """Returns the accuracy of the best constant answer; NaN where the clean records do not know it."""
    known = {record.content.get("checks", {}).get("chance") for record in clean}
    return float("nan") if None in known or not known else float(max(known))
