"""Records of attacks with chosen accuracies, for tests of tables and figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting.exact_rules import with_feedback

NAMES = ["Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

#: Accuracy under an attack, by rule and attacker's gradient; numbers like those of LeNet-5 on Fashion-MNIST.
ACCURACIES = {
    "bp": {"exact": 0.09, "through:usf": 0.30, "through:frsf": 0.51, "through:frsf:2": 0.55, "through:fa": 0.92},
    "usf": {
        **{"exact": 0.09, "feedback": 0.28, "through:usf": 0.29, "through:frsf": 0.53, "through:frsf:2": 0.5},
        "through:fa": 0.93,
    },
    "frsf": {
        **{"exact": 0.14, "feedback": 0.60, "through:usf": 0.39, "through:frsf": 0.62, "through:frsf:2": 0.6},
        "through:fa": 0.95,
    },
    "fa": {
        **{"exact": 0.2, "feedback": 0.94, "through:usf": 0.5, "through:frsf": 0.7, "through:frsf:2": 0.65},
        "through:fa": 0.95,
    },
}


def record(
    rule: str,
    seed: int,
    attack: str,
    gradient: str,
    epsilons: Sequence[float | None],
    correct: NDArray[np.bool_],
    **more: Any,
) -> Record:
    """Returns a record whose images are numbered from 0 unless `example` says otherwise."""
    keys = Keys("e", "classification", "fashion_5_9", "lenet5", rule, seed, attack, gradient)
    name = "accuracy" if attack == "clean" else "robust_accuracy"
    n = correct.shape[1]
    metrics = [Metric(name, size, float(row.mean()), n) for size, row in zip(epsilons, correct, strict=True)]
    outcomes = {"correct": correct, "example": np.arange(n)} | more.pop("outcomes", {})
    content = {"settings": {"norm": "linf", "class_names": NAMES}, "checks": {}} | more
    return Record(Path(f"{rule}-{seed}-{attack}-{gradient}.json"), keys, tuple(metrics), outcomes, content)


def clean(rule: str, seed: int, n: int = 1000) -> Record:
    """Returns the clean record of a network that is right for nine images in ten."""
    right = np.random.default_rng([seed, len(rule)]).random((1, n)) < 0.9
    return record(rule, seed, "clean", "none", [None], right, checks={"chance": 0.2})


def frame(records: Sequence[Record]) -> pd.DataFrame:
    """Returns records as tables and figures get them."""
    return with_feedback(pd.DataFrame([asdict(each.keys) | {"record": each} for each in records]))


def gradient_records(seeds: Sequence[int] = (0, 1, 2)) -> list[Record]:
    """Returns clean records, and those of PGD at two sizes through several gradients; `through:` on fewer images."""
    made = []
    for rule, accuracies in ACCURACIES.items():
        for seed in seeds:
            made.append(clean(rule, seed))
            for gradient, accuracy in accuracies.items():
                rng = np.random.default_rng([seed, len(rule), len(gradient)])
                images = np.arange(0, 300, 3) if "through" in gradient else np.arange(300)
                correct = rng.random((2, len(images))) < np.array([[min(1.0, 1.3 * accuracy)], [accuracy]])
                made.append(record(rule, seed, "pgd", gradient, [0.05, 0.1], correct, outcomes={"example": images}))
    return made


def transfer_records() -> list[Record]:
    """Returns clean records, and those of a transfer attack from both surrogates."""
    made = []
    for rule, accuracies in {"bp": (0.14, 0.7), "usf": (0.2, 0.72), "frsf": (0.24, 0.745), "fa": (0.4, 0.8)}.items():
        for seed in (0, 1, 2):
            made.append(clean(rule, seed))
            for surrogate, accuracy in zip(("twin", "other_seed"), accuracies, strict=True):
                right = np.random.default_rng([seed, len(rule), len(surrogate)]).random((1, 200)) < accuracy
                made.append(record(rule, seed, "transfer", f"surrogate:{surrogate}", [0.1], right))
    return made


def distance_records() -> list[Record]:
    """Returns records of attacks that look for the smallest perturbation, in two norms; FAB met two networks only."""
    made = []
    for rule, scale in {"bp": 1.0, "usf": 1.05, "frsf": 1.1, "fa": 1.6}.items():
        for seed in (0, 1, 2):
            rng = np.random.default_rng([seed, len(rule), int(10 * scale)])
            for attack, norm, size in (("fmn_linf", "linf", 0.05), ("fmn_l2", "l2", 0.8), ("ddn", "l2", 0.85)):
                distance = (scale * size * rng.gamma(3, 1 / 3, 200)).astype(np.float32)
                distance[:20] = 0
                distance[-3:] = np.inf
                settings = {"settings": {"norm": norm}}
                made.append(
                    record(
                        rule,
                        seed,
                        attack,
                        "exact",
                        [size],
                        distance[None] > size,
                        outcomes={"distance": distance},
                        **settings,
                    )
                )
    for rule in ("bp", "frsf"):
        distance = np.full(200, 0.001, np.float32)
        made.append(record(rule, 0, "fab", "exact", [0.05], distance[None] > 0.05, outcomes={"distance": distance}))
    return made


def gallery_records(n: int = 8, channels: int = 1) -> list[Record]:
    """Returns records of PGD whose first images are kept, through two gradients."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 28, dtype=np.float32)
    images = np.stack([np.hypot(grid[:, None] - 0.5, grid[None] - 0.5) < 0.15 + 0.04 * place for place in range(n)])
    images = np.repeat(0.8 * images[:, None].astype(np.float32), channels, axis=1)
    labels = np.arange(n) % 5
    made = []
    for gradient, share in (("exact", 1.0), ("feedback", 0.2)):
        signs = rng.choice([-1, 1], images.shape).astype(np.float32)
        attacked = np.stack([np.clip(images + size * signs, 0, 1) for size in (0.05, 0.1)])
        fooled = np.stack([np.arange(n) < share * n * part for part in (0.5, 1.0)])
        kept = {"kept_images": attacked, "kept_clean": images, "kept_labels": labels, "kept_clean_predictions": labels}
        kept["kept_predictions"] = np.where(fooled, (labels + 2) % 5, labels)
        correct = np.concatenate([~fooled, ~fooled], axis=1)
        made.append(record("frsf", 0, "pgd", gradient, [0.05, 0.1], correct, outcomes=kept))
    return made
