"""Intervals and tests against closed forms and SciPy, and how often they err."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_rel

from creditflow.audit.statistics import (
    Difference,
    holm,
    lost_gain,
    paired_difference,
    resampled_means,
    two_way_interval,
)
from creditflow.audit.verdicts import Comparison

RNG = np.random.default_rng(0)


def crossed(n_seeds: int, n_images: int) -> np.ndarray:
    """Outcomes with a seed effect and an image effect."""
    chance = RNG.normal(0, 0.8, (n_seeds, 1)) + RNG.normal(0.5, 1.5, (1, n_images))
    return RNG.random((n_seeds, n_images)) < 1 / (1 + np.exp(-chance))


@pytest.mark.parametrize(("n_seeds", "n_images"), [(1, 400), (3, 300), (8, 50)])
def test_the_two_way_bootstraps_variance_is_the_crossed_formula(n_seeds: int, n_images: int) -> None:
    """Var = s_R^2 / S + s_C^2 / N + s_E^2 / (S N), from the decomposition x = mean + row + column + rest."""
    x = crossed(n_seeds, n_images).astype(float)
    row, column = x.mean(1, keepdims=True) - x.mean(), x.mean(0, keepdims=True) - x.mean()
    rest = x - x.mean() - row - column
    expected = (row**2).mean() / n_seeds + (column**2).mean() / n_images + (rest**2).mean() / x.size
    assert resampled_means(x.astype(bool)).var() == pytest.approx(expected, rel=0.12)  # 2,000 resamples: 3 sd is 10%


def test_with_one_seed_the_interval_is_scipys_bootstrap() -> None:
    x = crossed(1, 500)
    reference = scipy.stats.bootstrap(
        (x[0],), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1)
    )
    low, high = two_way_interval(x)
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.006)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.006)


def test_certain_outcomes_have_no_interval_and_none_is_an_error() -> None:
    assert two_way_interval(np.ones((3, 20), bool)) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no outcomes"):
        two_way_interval(np.ones((3, 0), bool))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), seeds=st.integers(2, 5), images=st.integers(1, 40), rate=st.floats(0.0, 1.0))
def test_the_paired_difference_equals_its_closed_forms(seed: int, seeds: int, images: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.random((seeds, images)) < rate, rng.random((seeds, images)) < 0.5
    found = paired_difference(one, other)
    assert found.value == pytest.approx(one.mean() - other.mean())
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12
    balance = one.sum(0).astype(int) - other.sum(0).astype(int)
    won, lost = int((balance > 0).sum()), int((balance < 0).sum())
    assert found.p_images == pytest.approx(binomtest(won, won + lost).pvalue if won + lost else 1.0)
    if np.ptp(one.mean(1) - other.mean(1)) > 1e-12:
        assert found.p_seeds == pytest.approx(ttest_rel(one.mean(1), other.mean(1)).pvalue)
    else:
        assert found.p_seeds == pytest.approx(2 * scipy.stats.t.sf(abs(found.value) * images * seeds**0.5, seeds - 1))
    mirrored = paired_difference(other, one)
    assert (mirrored.low, mirrored.high, mirrored.p_images) == pytest.approx((-found.high, -found.low, found.p_images))


def test_the_same_outcomes_do_not_differ_at_all() -> None:
    same = np.random.default_rng(0).random((3, 50)) < 0.5
    assert paired_difference(same, same) == Difference(0.0, 0.0, 0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(same, same[:2])


def test_pairing_narrows_the_interval() -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(400) < 0.5  # what both models find easy
    one, other = np.stack([easy] * 3), np.stack([easy & (rng.random(400) < 0.98) for _ in range(3)])
    shuffled = other[:, rng.permutation(400)]
    paired, unpaired = paired_difference(one, other), paired_difference(one, shuffled)
    assert paired.high - paired.low < 0.3 * (unpaired.high - unpaired.low)


def test_intervals_cover_a_difference_of_zero_as_often_as_they_say() -> None:
    """Seeds and images both vary; the three criteria together call fewer than one in twenty pairs different."""
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(200):
        skill, ease = rng.normal(0, 0.3, (2, 3, 1)), rng.normal(0, 1.5, (1, 1, 100))
        outcome = rng.random((2, 3, 100)) < 1 / (1 + np.exp(-(skill + ease)))
        found = paired_difference(outcome[0], outcome[1])
        called += Comparison(found, found.p_images).sign != 0
    assert called <= 10


def test_what_is_lost_of_a_claim_is_the_difference_of_differences() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((3, 300)) < 0.8, rng.random((3, 300)) < 0.5
    worst = ours & (rng.random((3, 300)) < 0.6)
    value, low, high = lost_gain((ours, theirs), (worst, theirs))
    assert value == pytest.approx(ours.mean() - worst.mean())
    assert 0 < low < value < high
    assert lost_gain((ours, theirs), (ours, theirs)) == (0.0, 0.0, 0.0)


def test_mcnemars_test_counts_an_image_once_however_many_seeds_met_it() -> None:
    """Where seeds share what they get right, pairs of (seed, image) would find differences in noise."""
    rng = np.random.default_rng(3)
    called = 0
    for _ in range(200):
        dispositions = rng.random((2, 1, 100)) < 0.5
        outcome = np.where(rng.random((2, 3, 100)) < 0.9, dispositions, ~dispositions)
        called += paired_difference(outcome[0], outcome[1]).p_images < 0.05
    assert called <= 18


def test_holm_multiplies_the_smallest_by_their_number_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
