"""Intervals for accuracies measured on the same images by several seeds of a model."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

N_RESAMPLES = 2000
LEVEL = 0.95
INTERVAL = f"{LEVEL:.0%} two-way bootstrap over images and seeds"


def two_way_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """Returns a percentile bootstrap interval for the mean of outcomes (seeds, images).

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


def resampled_means(correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the mean of outcomes (seeds, images) in each of `N_RESAMPLES` two-way resamples."""
    seed_counts, image_counts = _counts(*correct.shape)
    # Sums of integers, exact in float64, and one division: all correct gives exactly 1.
    sums: NDArray[np.float64] = np.einsum("bi,bi->b", seed_counts @ correct.astype(np.float64), image_counts)
    return sums / correct.size


@lru_cache(maxsize=4)
def _counts(n_seeds: int, n_images: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns how often each seed (resamples, seeds) and each image (resamples, images) is drawn.

    They depend on the sizes alone, so that accuracies measured on the same images are resampled alike.
    """
    rng = np.random.default_rng([n_seeds, n_images])
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=N_RESAMPLES)
    images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=N_RESAMPLES)
    return seeds.astype(np.float64), images.astype(np.float64)
