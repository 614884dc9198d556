"""Intervals and tests against closed forms, statsmodels and SciPy, and how often they err."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from creditflow.verdict.statistics import (
    Estimate,
    accuracy,
    bonferroni,
    clopper_pearson,
    difference,
    effective_size,
    holm,
    lost_share,
    mean_of_differences,
    moments,
)

SIZES = {"seeds": st.integers(3, 5), "images": st.integers(2, 30), "seed": st.integers(0, 10_000)}


def crossed(
    seed: int, n_seeds: int, n_images: int, *, seeds: float = 1, images: float = 1, rest: float = 1
) -> np.ndarray:
    """Normal numbers (seeds, images) with these standard deviations of the effects, and mean 0.5."""
    rng = np.random.default_rng(seed)
    of_seeds, of_images = rng.normal(0, seeds, (n_seeds, 1)), rng.normal(0, images, (1, n_images))
    values: np.ndarray = 0.5 + of_seeds + of_images + rng.normal(0, rest, (n_seeds, n_images))
    return values


def outcomes(seed: int, n_seeds: int, n_images: int, rate: float = 0.5) -> np.ndarray:
    right: np.ndarray = np.random.default_rng(seed).random((n_seeds, n_images)) < rate
    return right


def mean_squares(values: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of seeds, images and the rest, by statsmodels."""
    seeds, images = np.indices(values.shape)
    frame = pd.DataFrame({"y": values.ravel().astype(float), "seed": seeds.ravel(), "image": images.ravel()})
    table = anova_lm(ols("y ~ C(seed) + C(image)", frame).fit())
    return tuple(table["mean_sq"][["C(seed)", "C(image)", "Residual"]])


@pytest.mark.parametrize(
    "spreads",
    [
        {"seeds": 2, "images": 1, "rest": 1},
        {"seeds": 0, "images": 2, "rest": 1},
        {"seeds": 0.1, "images": 0.1, "rest": 3},
    ],
    ids=["seeds", "images", "rest"],
)
def test_the_variance_is_that_of_the_analysis_of_variance(spreads: dict[str, float]) -> None:
    for n_seeds, n_images in ((4, 9), (3, 9), (4, 2)):
        values = crossed(n_seeds, n_seeds, n_images, **spreads)
        of_seeds, of_images, rest = mean_squares(values)
        seeds_part, images_part = max(of_seeds, rest), max(of_images - rest, 0)
        total = seeds_part + images_part
        measured = moments(values)
        assert measured.value == pytest.approx(values.mean())
        size = n_seeds * n_images
        assert measured.variance == pytest.approx(total / size)
        assert measured.variance * size >= max(of_seeds, of_images) - 1e-9
        assert measured.seeds_share == pytest.approx(seeds_part / total)
        seeds_df, images_df = n_seeds - 1, n_images - 1
        parts = of_seeds**2 / seeds_df + of_images**2 / images_df + rest**2 / (seeds_df * images_df)
        assert measured.df == pytest.approx(max(total**2 / parts, min(seeds_df, images_df)))
        assert (measured.n_seeds, measured.n_images) == (n_seeds, n_images)
        assert accuracy(values).standard_error == pytest.approx((total / size) ** 0.5)


def test_the_variance_is_that_of_means_of_further_samples() -> None:
    """Var = sd_seeds^2 / S + sd_images^2 / N + sd_rest^2 / (S N)."""
    spreads = {"seeds": 0.3, "images": 1.0, "rest": 0.8}
    samples = np.stack([crossed(seed, 8, 40, **spreads) for seed in range(3000)])
    expected = 0.3**2 / 8 + 1.0 / 40 + 0.8**2 / 320
    assert samples.mean((1, 2)).var() == pytest.approx(expected, rel=0.08)  # 3 standard deviations of 3,000 samples
    assert moments(samples).variance.mean() == pytest.approx(expected, rel=0.03)


def test_with_fewer_than_three_seeds_it_is_students_test_over_images() -> None:
    first, second = outcomes(0, 2, 50, 0.7), outcomes(1, 2, 50, 0.4)
    for n_seeds in (1, 2):
        means = first[:n_seeds].mean(0) - second[:n_seeds].mean(0)
        reference = scipy.stats.ttest_1samp(means, 0)
        estimate = difference(first[:n_seeds], second[:n_seeds])
        interval = reference.confidence_interval(0.95)
        assert (estimate.low, estimate.high) == pytest.approx((interval.low, interval.high))
        assert estimate.p == pytest.approx(reference.pvalue)
        assert (estimate.df, estimate.moments.seeds_share) == (49, 0)
        wider = reference.confidence_interval(0.99)
        assert estimate.bounds(0.99) == pytest.approx((wider.low, wider.high))
    assert difference(crossed(0, 3, 50), crossed(1, 3, 50)).df < 49


@settings(max_examples=40, deadline=None)
@given(**SIZES, rate=st.floats(0.0, 1.0))
def test_a_difference_has_the_quantiles_that_it_says(seeds: int, images: int, seed: int, rate: float) -> None:
    first, second = outcomes(seed, seeds, images, rate), outcomes(seed + 1, seeds, images)
    estimate, measured = difference(first, second), moments(first.astype(float) - second)
    least = scipy.stats.t.ppf(0.975, images - 1) * 1.5 / images
    half = max(scipy.stats.t.ppf(0.975, estimate.df) * measured.variance**0.5, least)
    value = first.mean() - second.mean()
    assert estimate.value == pytest.approx(value)
    assert (estimate.low, estimate.high) == pytest.approx((max(value - half, -1), min(value + half, 1)))
    assert estimate.standard_error == pytest.approx(measured.variance**0.5)
    # The cautious interval weighs the quantiles of seeds and images (Cochran and Cox).
    share = measured.seeds_share
    for level in (0.95, 1 - 0.05 / 8):
        quantile = share * scipy.stats.t.ppf((1 + level) / 2, seeds - 1)
        quantile += (1 - share) * scipy.stats.t.ppf((1 + level) / 2, images - 1)
        least = scipy.stats.t.ppf((1 + level) / 2, images - 1) * 1.5 / images
        cautious = max(quantile * measured.variance**0.5, least)
        assert estimate.bounds(level) == pytest.approx((value - cautious, value + cautious))
    if 1e-9 < estimate.p < 1:
        low, high = estimate.bounds(1 - estimate.p)
        assert min(abs(low), abs(high)) == pytest.approx(0, abs=1e-7)
    else:
        assert estimate.p <= 1e-9 or (estimate.p == 1 and value == pytest.approx(0))


@settings(max_examples=25, deadline=None)
@given(**SIZES, numbers=st.booleans())
def test_neither_order_nor_side_matters(seeds: int, images: int, seed: int, numbers: bool) -> None:
    rng = np.random.default_rng(seed)
    pair = rng.random((2, seeds, images))
    first, second = pair if numbers else pair < np.array([0.6, 0.4])[:, None, None]
    estimate, mirrored = difference(first, second), difference(second, first)
    order, places = rng.permutation(seeds), rng.permutation(images)
    shuffled = [side[order][:, places] for side in (first, second)]
    assert _numbers(difference(*shuffled)) == pytest.approx(_numbers(estimate))
    assert (mirrored.value, mirrored.low, mirrored.high) == pytest.approx(
        (-estimate.value, -estimate.high, -estimate.low)
    )
    assert mirrored.p == pytest.approx(estimate.p)
    assert -1 <= estimate.low <= estimate.value <= estimate.high <= 1
    single, again = accuracy(first), accuracy(shuffled[0])
    assert _numbers(again)[:3] == pytest.approx(_numbers(single)[:3])
    assert 0 <= single.low <= single.value <= single.high <= 1


def _numbers(estimate: Estimate) -> tuple[float, ...]:
    return estimate.value, estimate.low, estimate.high, estimate.p, estimate.df, estimate.standard_error


@pytest.mark.parametrize("n_seeds", [1, 2, 3, 10])
def test_equal_outcomes_differ_by_no_more_than_three_in_n(n_seeds: int) -> None:
    same = outcomes(0, n_seeds, 200)
    estimate = difference(same, same)
    half = scipy.stats.t.ppf(0.975, 199) * 1.5 / 200
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0, -half, half))
    assert half == pytest.approx(3 / 200, rel=0.02)
    assert (estimate.p, estimate.standard_error, estimate.moments.seeds_share) == (1.0, 0.0, 0)
    constant = mean_of_differences(np.full((n_seeds, 200), 0.1))
    assert (constant.low, constant.high) == pytest.approx((0.1 - half, 0.1 + half))
    assert constant.p == pytest.approx(2 * scipy.stats.t.sf(0.1 / (1.5 / 200), 199), rel=1e-3)
    certain = difference(np.ones((n_seeds, 500), bool), np.zeros((n_seeds, 500), bool))
    assert (certain.value, certain.high) == (1, 1)
    assert certain.p == 2e-15


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_a_single_image_tells_next_to_nothing(n_seeds: int) -> None:
    """Its interval is Cauchy's, of one degree of freedom."""
    estimate = difference(np.ones((n_seeds, 1), bool), np.zeros((n_seeds, 1), bool))
    assert (estimate.df, estimate.low, estimate.high) == (1, -1, 1)
    assert estimate.p == pytest.approx(2 * scipy.stats.t.sf(1 / 1.5, 1))
    assert estimate.bounds(0.5) == pytest.approx((1 - 1.5, 1 + 1.5))
    mixed = moments(np.array([[1.0], [0.0], [1.0]]))
    assert mixed.variance == pytest.approx(np.var([1, 0, 1], ddof=1) / 3)
    assert (mixed.df, mixed.seeds_share) == (2, 1)
    ratio = scipy.stats.t.ppf(0.975, 1) / scipy.stats.t.ppf(0.975, 2)
    assert effective_size(mixed, bounded=False) == pytest.approx(2 / 9 / mixed.variance * ratio**2)
    assert accuracy(np.ones((n_seeds, 1), bool)).low == pytest.approx(0.025)


def test_outcomes_that_do_not_fit_are_refused() -> None:
    same = outcomes(0, 3, 50)
    with pytest.raises(ValueError, match=r"shapes \(3, 50\) and \(2, 50\) cannot be paired"):
        difference(same, same[:2])
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(same[:, :0], same[:, :0])
    with pytest.raises(ValueError, match="no outcomes"):
        accuracy(np.ones((3, 0), bool))


@pytest.mark.parametrize("right", [1, 30, 59])
def test_the_interval_of_one_seed_is_clopper_and_pearsons(right: int) -> None:
    """The unbiased variance of 60 outcomes is that of 59 independent ones whose variance is known."""
    estimate = accuracy(np.arange(60)[None, :] < right)
    expected = proportion_confint(59 * right / 60, 59, method="beta")
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.value == right / 60
    assert np.isnan(estimate.p)


@pytest.mark.parametrize("n_seeds", [1, 3, 10])
def test_an_accuracy_of_none_or_all_still_has_an_interval(n_seeds: int) -> None:
    """All seeds agree: they are no more than one seed."""
    none, everything = accuracy(np.zeros((n_seeds, 200), bool)), accuracy(np.ones((n_seeds, 200), bool))
    assert (none.low, none.high) == pytest.approx(proportion_confint(0, 200, method="beta"))
    assert (everything.low, everything.high) == pytest.approx(proportion_confint(200, 200, method="beta"))


def test_an_accuracy_counts_as_many_outcomes_as_its_variance_allows() -> None:
    measured = moments(outcomes(0, 3, 200, 0.4))
    ratio = scipy.stats.t.ppf(0.975, 199) / scipy.stats.t.ppf(0.975, measured.df)
    expected = measured.value * (1 - measured.value) / measured.variance * ratio**2
    assert effective_size(measured, bounded=False) == pytest.approx(expected)
    # Every seed is right on other images, which knows more of the mean than independent outcomes would.
    latin = np.tile(np.eye(3, dtype=bool), (1, 20))
    assert effective_size(moments(latin), bounded=True) <= 180
    seeds_differ = np.arange(200)[None, :] < np.array([20, 100, 180])[:, None]
    assert effective_size(moments(seeds_differ), bounded=True) < 3


def test_clopper_and_pearson_take_numbers_that_are_not_whole() -> None:
    shares, sizes = np.array([0.0, 0.5, 1.0, 0.25]), np.array([10.0, 10.0, 10.0, 2.5])
    low, high = clopper_pearson(shares, sizes)
    for index, (share, size) in enumerate(zip(shares, sizes, strict=True)):
        assert (low[index], high[index]) == pytest.approx(proportion_confint(share * size, size, method="beta"))


def test_numbers_have_intervals_as_outcomes_do() -> None:
    """Average precisions vary less than outcomes of the same mean, so that their interval is narrower."""
    rng = np.random.default_rng(0)
    precisions = rng.beta(8, 4, (1, 300))
    estimate = accuracy(precisions)
    normal = scipy.stats.ttest_1samp(precisions[0], 0).confidence_interval(0.95)
    assert (estimate.low, estimate.high) == pytest.approx((normal.low, normal.high), abs=0.003)


def pairs(seed: int, n_seeds: int, claim: float, worst: float) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Outcomes under the claim's attack and in the worst case, which is never better, of a rule and a reference."""
    rng = np.random.default_rng(seed)
    level = rng.random((2, n_seeds, 120))
    shared = 0.7 * rng.random((1, 120))
    rule, reference = 0.3 * level + shared
    return (rule < claim, reference < 0.3), (rule < worst, reference < 0.3)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("claim", "worst"), [(0.7, 0.5), (0.6, 0.32), (0.6, 0.59), (0.6, 0.2), (0.32, 0.3)])
@pytest.mark.parametrize("n_seeds", [1, 4])
def test_the_lost_share_is_the_set_of_shares_that_fit(seed: int, n_seeds: int, claim: float, worst: float) -> None:
    before, after = pairs(seed, n_seeds, claim, worst)
    estimate = lost_share(before, after)
    advantage, left = (first.astype(float) - second for first, second in (before, after))
    if advantage.mean() <= 0:
        assert np.isnan(estimate.value) and (estimate.low, estimate.high) == (0, 1)
        return
    shares = np.linspace(0, 1, 251)
    remainders = [mean_of_differences(left - (1 - share) * advantage) for share in shares]
    fitting = shares[[abs(kept.value) <= float(kept.moments.half_width()) for kept in remainders]]
    expected = np.clip(1 - left.mean() / advantage.mean(), 0, 1)
    assert estimate.value == pytest.approx(expected)
    assert estimate.low == pytest.approx(fitting.min() if len(fitting) else expected, abs=0.005)
    assert estimate.high == pytest.approx(fitting.max() if len(fitting) else expected, abs=0.005)
    half = mean_of_differences(left - advantage / 2)
    assert (estimate.p, estimate.df, estimate.standard_error) == (half.p, half.df, half.standard_error)


def test_a_share_beyond_all_is_all() -> None:
    strong, weak = np.ones((3, 300), bool), np.zeros((3, 300), bool)
    assert _numbers(lost_share((strong, weak), (weak, strong)))[:3] == (1, 1, 1)
    assert _numbers(lost_share((outcomes(0, 3, 300, 0.3), weak), (strong, weak)))[:3] == (0, 0, 0)


def test_where_there_is_no_advantage_no_share_of_it_is_lost() -> None:
    strong, weak = np.ones((3, 300), bool), np.zeros((3, 300), bool)
    for claim in ((weak, strong), (strong, strong)):
        estimate = lost_share(claim, (weak, strong))
        assert np.isnan(estimate.value) and (estimate.low, estimate.high) == (0, 1)


def test_p_values_are_adjusted_for_their_number() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert bonferroni([0.01, 0.04, 0.5]) == pytest.approx([0.03, 0.12, 1.0])
    assert holm([]) == bonferroni([]) == []
    p_values = np.random.default_rng(0).random(9).round(1) / 3  # some are equal
    for method, adjust in (("holm", holm), ("bonferroni", bonferroni)):
        assert adjust(list(p_values)) == pytest.approx(multipletests(p_values, method=method)[1])


# --- how often they err -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_simulation", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("n_seeds", "spread", "least", "most"),
    [(3, 0.03, 92, 100), (3, 0.10, 92, 100), (5, 0.03, 94, 97.5), (10, 0.03, 94, 97.5)],
)
def test_intervals_cover_the_truth_as_often_as_they_say(
    simulation: ModuleType, n_seeds: int, spread: float, least: float, most: float
) -> None:
    covered = simulation.cell(n_seeds, 200, spread, 400, families={})
    assert set(covered) == {"accuracy", "difference", "lost share"}
    assert all(least <= share <= most for share in covered.values()), covered


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_families_of_eight_comparisons_have_few_false_words(simulation: ModuleType, n_seeds: int) -> None:
    """Nothing of the seeds' spread is left out: with Satterthwaite's quantiles 16% of families err at 3 seeds."""
    shares = simulation.cell(n_seeds, 100, 0.10, 300)
    assert all(shares[f"false, {name}"] <= 5 for name in simulation.FAMILIES), shares
