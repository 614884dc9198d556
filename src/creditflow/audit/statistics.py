"""Intervals and tests for accuracies measured on the same images by several seeds of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

N_RESAMPLES = 2000
LEVEL = 0.95
INTERVAL = f"{LEVEL:.0%} two-way bootstrap over images and seeds"


def two_way_interval(correct: NDArray[Any]) -> tuple[float, float]:
    """Returns a percentile bootstrap interval for the mean of outcomes (seeds, images), bool or numbers.

    Seeds and images are resampled independently of each other, each with replacement, because every seed's model
    meets the same images: the outcomes are crossed, not nested (the "pigeonhole" bootstrap of Owen, 2007, which is
    mildly conservative). With one seed it is the plain bootstrap over images.

    Raises ValueError if there is no outcome.
    """
    if correct.size == 0:
        raise ValueError("no outcomes")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled_means(correct), [tail, 1 - tail])
    return float(low), float(high)


def resampled_means(correct: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the mean of outcomes (seeds, images) in each of `N_RESAMPLES` two-way resamples."""
    seed_counts, image_counts = _counts(*correct.shape)
    # Sums of integers, exact in float64, and one division: all correct gives exactly 1.
    sums: NDArray[np.float64] = np.einsum("bi,bi->b", seed_counts @ correct.astype(np.float64), image_counts)
    return sums / correct.size


#: Outcomes (seeds, images) of a model, and of the model with which it is compared.
Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model minus that of another. Both were measured with the same seeds on the same images.

    Attributes:
        value, low, high: the mean and its 95% interval.
        p_images: p-value of McNemar's exact test over images. An image is won if more seeds of the first model than of
            the second classify it correctly, and lost in the opposite case. Images are the pairs of the test, because
            the outcomes of one image in several seeds are not independent of each other.
        p_seeds: p-value of Student's t-test over the differences of single seeds. If all of them are equal, the test
            uses a standard deviation of one image. NaN with one seed, which says nothing of other seeds.
    """

    value: float
    low: float
    high: float
    p_images: float
    p_seeds: float


def paired_difference(outcomes: NDArray[np.bool_], reference: NDArray[np.bool_]) -> Difference:
    """Compares a model's outcomes (seeds, images) with those of a reference.

    The interval is a two-way bootstrap in which both are resampled alike. Raises ValueError if the shapes differ or
    there is no outcome.
    """
    if outcomes.shape != reference.shape or outcomes.size == 0:
        raise ValueError(f"outcomes of shapes {outcomes.shape} and {reference.shape} cannot be paired")
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled_means(outcomes) - resampled_means(reference), [tail, 1 - tail])
    balance = outcomes.sum(0, dtype=np.int64) - reference.sum(0, dtype=np.int64)
    won, lost = int((balance > 0).sum()), int((balance < 0).sum())
    p_images = float(mcnemar([[0, won], [lost, 0]], exact=True).pvalue) if won + lost else 1.0
    return Difference(
        float(outcomes.mean() - reference.mean()),
        float(low),
        float(high),
        p_images,
        _seeds_test(outcomes.mean(1) - reference.mean(1), outcomes.shape[1]),
    )


def lost_gain(claim: Pair, worst: Pair) -> tuple[float, float, float]:
    """Returns how much of a difference is lost from one attack (`claim`) to another (`worst`), and its 95% interval.

    Each pair holds the outcomes (seeds, images) of a model and of its reference. All four are resampled alike.
    """
    tail = (1 - LEVEL) / 2
    means = [resampled_means(outcomes) - resampled_means(reference) for outcomes, reference in (claim, worst)]
    low, high = np.quantile(means[0] - means[1], [tail, 1 - tail])
    values = [float(outcomes.mean() - reference.mean()) for outcomes, reference in (claim, worst)]
    return values[0] - values[1], float(low), float(high)


def _seeds_test(differences: NDArray[np.float64], n_images: int) -> float:
    if len(differences) < 2:
        return float("nan")
    if np.ptp(differences) < 1e-12:
        # The seeds agree, so that their standard deviation is 0 and the test would be certain. But accuracies come in
        # steps of one image: one image stands for the standard deviation.
        statistic = abs(differences.mean()) * n_images * np.sqrt(len(differences))
        return float(2 * student_t.sf(statistic, len(differences) - 1))
    return float(ttest_1samp(differences, 0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number (Holm, 1979)."""
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]] if len(p_values) else []


@lru_cache(maxsize=4)
def _counts(n_seeds: int, n_images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns how often each seed (resamples, seeds) and each image (resamples, images) is drawn.

    They depend on the sizes alone, so that accuracies measured on the same images are resampled alike.
    """
    rng = np.random.default_rng([n_seeds, n_images])
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=N_RESAMPLES)
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=N_RESAMPLES)
    return seeds.astype(np.float64), images.astype(np.float64)
