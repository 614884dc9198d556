"""Intervals and tests for outcomes measured on the same images by several seeds of a model.

Seeds and images are crossed random effects: each seed's model meets each image, and both are samples of what might have
been, as readers and cases are in studies with several readers (Gallas, 2006; Obuchowski and Rockette, 1995).
docs/audit.md explains the formulas and shows how often they err in a simulation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import beta

LEVEL = 0.95
INTERVAL = f"{LEVEL:.0%} for seeds and images as crossed random effects"

#: With fewer seeds nothing is known of their spread, so that an estimate speaks of these networks only.
FEWEST_SEEDS = 3

#: No standard error of a difference is less than this over the number of images. Twice this is the 3 of the rule of
#: three: where none of n images differs, up to 3 / n of all images may.
_LEAST_ERROR = 1.5

#: Outcomes (seeds, images) of a model, and of the model with which it is compared.
Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class Moments:
    """What outcomes (..., seeds, images) say of their mean; every array is (...).

    Attributes:
        value: the mean.
        variance: the variance of the mean over other seeds and images; over other images with fewer than three seeds.
        df: Satterthwaite's degrees of freedom of the variance.
        seeds_share: the part of the variance that is due to seeds, from 0 to 1.
        n_seeds, n_images: the size of the sample.
    """

    value: NDArray[np.float64]
    variance: NDArray[np.float64]
    df: NDArray[np.float64]
    seeds_share: NDArray[np.float64]
    n_seeds: int
    n_images: int

    def half_width(self, level: float = LEVEL) -> NDArray[np.float64]:
        """Returns half the width of the interval for the mean of differences: t with Satterthwaite's df."""
        return self._not_below(stdtrit(self.df, (1 + level) / 2) * np.sqrt(self.variance), (1 + level) / 2)

    def cautious_half_width(self, level: float) -> NDArray[np.float64]:
        """Returns half the width of an interval that keeps levels far above 95%, too.

        Its quantile is the mean of those of the seeds' and the images' mean squares, weighted by their parts of the
        variance (Cochran and Cox, 1950). Satterthwaite's degrees of freedom are themselves estimated: where three seeds
        agree by chance, they grow, and tails come out too thin.
        """
        return self._not_below(self._cautious_error((1 + level) / 2), (1 + level) / 2)

    def p_value(self) -> float:
        """Returns the p-value of a mean of zero against all others, by the cautious interval, of a single mean."""
        size = abs(float(self.value))
        if size == 0:
            return 1.0

        def excess(log_tail: float) -> float:
            probability = -np.expm1(log_tail)
            return float(self._not_below(self._cautious_error(probability), probability)) - size

        smallest = np.log(1e-15)
        if excess(smallest) <= 0:
            return 2e-15
        return 2 * float(np.exp(brentq(excess, smallest, np.log(0.5), xtol=1e-12)))

    def _cautious_error(self, probability: float) -> NDArray[np.float64]:
        of_seeds, of_images = stdtrit(max(self.n_seeds - 1, 1), probability), stdtrit(self._df_of_images, probability)
        quantile = self.seeds_share * of_seeds + (1 - self.seeds_share) * of_images
        return np.asarray(quantile * np.sqrt(self.variance), dtype=np.float64)

    def _not_below(self, width: NDArray[np.float64], probability: float) -> NDArray[np.float64]:
        least = stdtrit(self._df_of_images, probability) * _LEAST_ERROR / self.n_images
        return np.asarray(np.maximum(width, least), dtype=np.float64)

    @property
    def _df_of_images(self) -> int:
        return max(self.n_images - 1, 1)


def moments(outcomes: NDArray[Any]) -> Moments:
    """Returns what outcomes (..., seeds, images), bool or numbers, say of their mean.

    With mean squares of seeds, images and the rest (their interaction), from the two-way analysis of variance,
    Var(mean) = (max(MS_seeds, MS_rest) + max(MS_images - MS_rest, 0)) / (S N), which is never below MS_seeds / (S N) or
    MS_images / (S N). With fewer than three seeds it is MS_images / (S N), with N - 1 degrees of freedom.

    Raises ValueError if there is no outcome.
    """
    if outcomes.size == 0:
        raise ValueError("no outcomes")
    n_seeds, n_images = outcomes.shape[-2:]
    value = outcomes.mean((-2, -1), dtype=np.float64)
    of_seeds, of_images, rest = _mean_squares(outcomes, value)
    images_df, outcomes_df = max(n_images - 1, 1), float(n_seeds * n_images)
    if n_seeds < FEWEST_SEEDS:
        fixed = np.zeros_like(value)
        return Moments(value, of_images / outcomes_df, fixed + images_df, fixed, n_seeds, n_images)
    seeds_part = np.maximum(of_seeds, rest)
    total = seeds_part + np.maximum(of_images - rest, 0)
    spread = of_seeds**2 / (n_seeds - 1) + of_images**2 / images_df + rest**2 / ((n_seeds - 1) * images_df)
    certain = total <= 1e-24  # the differences of constants are no exact zeros
    df = np.where(certain, images_df, total**2 / np.where(certain, 1, spread))
    share = np.where(certain, 0, seeds_part / np.where(certain, 1, total))
    return Moments(value, total / outcomes_df, np.maximum(df, min(n_seeds - 1, images_df)), share, n_seeds, n_images)


def _mean_squares(outcomes: NDArray[Any], mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Returns the mean squares of seeds, images and the rest, each (...), of outcomes (..., seeds, images)."""
    n_seeds, n_images = outcomes.shape[-2:]
    floating = np.issubdtype(outcomes.dtype, np.floating)
    centred = outcomes - mean[..., None, None].astype(outcomes.dtype if floating else np.float64)
    seeds = n_images * np.square(centred.mean(-1)).sum(-1)
    images = n_seeds * np.square(centred.mean(-2)).sum(-1)
    rest = np.maximum(np.square(centred).sum((-2, -1)) - seeds - images, 0)
    seeds_df, images_df = max(n_seeds - 1, 1), max(n_images - 1, 1)
    return seeds / seeds_df, images / images_df, rest / (seeds_df * images_df)


@dataclass(frozen=True)
class Estimate:
    """An estimated mean, from 0 to 1 or -1 to 1.

    Attributes:
        value: the estimate.
        low, high: its 95% interval.
        p: p-value, of a single test, of the hypothesis that the value is zero (`lost_share`: one half); NaN for an
            accuracy.
        df: Satterthwaite's degrees of freedom.
        standard_error: the square root of the variance of the mean.
        moments: what it was computed from.
    """

    value: float
    low: float
    high: float
    p: float
    df: float
    standard_error: float
    moments: Moments

    def bounds(self, level: float) -> tuple[float, float]:
        """Returns the cautious interval of a difference at another level, as several tests together need it."""
        half = float(self.moments.cautious_half_width(level))
        return self.value - half, self.value + half


def accuracy(outcomes: NDArray[Any]) -> Estimate:
    """Returns the mean of outcomes (seeds, images), bool or from 0 to 1, with an interval within 0 and 1.

    The interval is Clopper and Pearson's of as many independent outcomes as have the same variance, fewer where the
    variance is known less well (Korn and Graubard, 1998). Raises ValueError if there is no outcome.
    """
    measured = moments(outcomes)
    value, variance = float(measured.value), float(measured.variance)
    n = effective_size(measured, bounded=outcomes.dtype == np.bool_)
    low, high = clopper_pearson(measured.value, n)
    return Estimate(value, float(low), float(high), nan, float(measured.df), variance**0.5, measured)


def effective_size(measured: Moments, *, bounded: bool) -> NDArray[np.float64]:
    """Returns the number (...) of independent outcomes that know as much of an accuracy.

    It is the number of images where all outcomes are alike, and, if `bounded`, never above the number of outcomes.
    """
    certain = measured.variance <= 1e-24
    sizes = measured.value * (1 - measured.value) / np.where(certain, 1, measured.variance)
    if bounded:
        sizes = np.minimum(sizes, measured.n_seeds * measured.n_images)
    probability = (1 + LEVEL) / 2
    ratio = stdtrit(max(measured.n_images - 1, 1), probability) / stdtrit(measured.df, probability)
    return np.where(certain, measured.n_images, sizes * ratio**2)


def clopper_pearson(share: NDArray[np.float64], n: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Returns the 95% interval of a share (...) among n (...) outcomes, which need not be whole numbers."""
    tail, successes, failures = (1 - LEVEL) / 2, share * n, n - share * n
    with np.errstate(invalid="ignore"):
        low = np.where(successes > 0, beta.ppf(tail, successes, failures + 1), 0.0)
        high = np.where(failures > 0, beta.ppf(1 - tail, successes + 1, failures), 1.0)
    return np.minimum(low, share), np.maximum(high, share)


def difference(first: NDArray[Any], second: NDArray[Any]) -> Estimate:
    """Returns the mean of first minus second, outcomes (seeds, images) of the same seeds on the same images.

    Raises ValueError if the shapes differ or there is no outcome.
    """
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"outcomes of shapes {first.shape} and {second.shape} cannot be paired")
    return mean_of_differences(np.subtract(first, second, dtype=np.float64))


def mean_of_differences(differences: NDArray[np.float64]) -> Estimate:
    """Returns the mean of differences (seeds, images), each from -1 to 1, with its interval and p-value."""
    measured = moments(differences)
    value, half = float(measured.value), float(measured.half_width())
    low, high = max(value - half, -1.0), min(value + half, 1.0)
    return Estimate(value, low, high, measured.p_value(), float(measured.df), float(measured.variance) ** 0.5, measured)


def lost_share(claim: Pair, worst: Pair) -> Estimate:
    """Returns which share of an advantage under one attack (`claim`) is lost under another (`worst`), within 0 and 1.

    The interval is Fieller's: all shares s for which the difference under `worst` and (1 - s) times that under `claim`
    differ by less than the half width of their interval. The p-value is that of s = 1/2. Each pair holds the outcomes
    (seeds, images) of a model and of its reference. Where there is no advantage, the value is NaN and nothing is
    excluded.
    """
    before, after = (np.subtract(*pair, dtype=np.float64) for pair in (claim, worst))
    at_half = mean_of_differences(after - before / 2)
    if before.mean() <= 0:
        return replace(at_half, value=nan, low=0.0, high=1.0)

    def excess(share: float) -> float:
        kept = moments(after - (1 - share) * before)
        return abs(float(kept.value)) - float(kept.half_width())

    value = min(max(1 - float(after.mean() / before.mean()), 0.0), 1.0)
    return replace(at_half, value=value, low=_limit(excess, value, 0.0), high=_limit(excess, value, 1.0))


def _limit(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Returns where, between a share inside an interval and the end of all shares, the interval ends."""
    if excess(inside) >= 0:
        return inside
    return end if excess(end) <= 0 else float(brentq(excess, inside, end, xtol=1e-9))


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values adjusted for their number (Holm, 1979)."""
    order = np.argsort(p_values, kind="stable")
    multiplied = np.array(p_values, dtype=np.float64)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(multiplied), 1)
    return [float(p) for p in adjusted]


def bonferroni(p_values: Sequence[float]) -> list[float]:
    """Returns p-values multiplied by their number, at most 1."""
    return [min(p * len(p_values), 1.0) for p in p_values]
