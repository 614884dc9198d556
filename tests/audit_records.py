"""Records of audits, made from outcomes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from creditflow.records.record import Keys, Metric, Record
from creditflow.verdict.verdicts import audit

N_IMAGES = 400
AUDIT: dict[str, Any] = {"epsilons": [0.1], "attacks": ["pgd", "apgd_dlr", "square", "transfer"], "claim": "pgd"}


def record(
    rule: str,
    seed: int,
    attack: str,
    gradient: str,
    correct: Any,
    *,
    example: Sequence[int] | None = None,
    epsilons: Sequence[float] = (0.1,),
    dataset: str = "toy",
    outcome: str = "correct",
    **checks: object,
) -> Record:
    """A record of outcomes (epsilons, images)."""
    rows, clean = np.array(correct), attack == "clean"
    name = {"correct": "accuracy" if clean else "robust_accuracy", "ap": "map"}[outcome]
    sizes: list[float | None] = [None] if clean else [*epsilons]
    metrics = tuple(Metric(name, size, float(row.mean()), len(row)) for size, row in zip(sizes, rows, strict=True))
    keys = Keys("test", "classification", dataset, "small_cnn", rule, seed, attack, gradient)
    numbers = np.arange(rows.shape[1]) if example is None else np.array(example)
    return Record(Path(f"{rule}-{seed}.json"), keys, metrics, {outcome: rows, "example": numbers}, {"checks": checks})


def measured(
    rule: str,
    shares: Mapping[str, float],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    clean: float = 0.9,
    checks: Mapping[str, Mapping[str, object]] | None = None,
    n_images: int = N_IMAGES,
) -> list[Record]:
    """Records of a rule whose accuracies are these shares, by "attack gradient"; half of each depends on the seed.

    The first images are the easy ones. Twenty images at each border are right in some seeds only.
    """
    records = [record(rule, seed, "clean", "none", [_right(clean, seed, n_images)], chance=0.2) for seed in seeds]
    for condition, share in shares.items():
        attack, gradient = condition.split()
        facts = (checks or {}).get(condition, {})
        records += [record(rule, seed, attack, gradient, [_right(share, seed, n_images)], **facts) for seed in seeds]
    return records


def _right(share: float, seed: int, n_images: int) -> np.ndarray:
    border = round(share * n_images)
    right: np.ndarray = np.arange(n_images) < border
    flipped = np.random.default_rng([seed, border]).random(n_images) < 0.02
    return right ^ flipped


#: Accuracies of a plain network, and of a rule that only fools the claim's attack.
PLAIN = {
    "pgd exact": 0.1,
    "apgd_dlr exact": 0.08,
    "square none": 0.3,
    "transfer surrogate:twin": 0.5,
    "transfer surrogate:other_seed": 0.6,
}
MASKED = {**PLAIN, "pgd feedback": 0.7}

#: Accuracies of a rule that is more robust in the worst case, too.
HOLDING = {**{name: share + 0.3 for name, share in PLAIN.items()}, "pgd feedback": 0.42}


def relabelled(member: Record, rule: str, seed: int) -> Record:
    """The record as if it were another rule's."""
    return replace(member, keys=replace(member.keys, rule=rule, seed=seed))


def row_of(records: list[Record], rule: str = "frsf", **keys: Any) -> pd.Series:
    frame = audit(records, AUDIT | keys)
    return frame[frame.rule == rule].iloc[0]


def worse(shares: Mapping[str, float], amount: float) -> dict[str, float]:
    return {name: share - amount for name, share in shares.items()}


def left(records: list[Record], rule: str) -> float:
    """The share of outcomes of a rule that are right in all of its records."""
    by_seed: dict[int, list[np.ndarray]] = {}
    for one in records:
        if one.keys.rule == rule:
            by_seed.setdefault(one.keys.seed, []).append(one.outcomes["correct"][0])
    return float(np.mean([np.logical_and.reduce(rows) for rows in by_seed.values()]))
