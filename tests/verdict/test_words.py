"""Each word of a verdict at its boundaries."""

from math import nan

import numpy as np
import pytest

from creditflow.verdict.statistics import Estimate, Moments
from creditflow.verdict.words import ALPHA, Claim, Trust, claim_verdict, net_effect

MARGIN = 0.05
TINY = 1e-9


def estimate(value: float, low: float, high: float) -> Estimate:
    """An estimate whose cautious interval at each level is the given one, of a variance of images alone."""
    half = (high - low) / 2
    t = 1.9600  # of a large number of images
    variance = np.float64((half / t) ** 2)
    measured = Moments(np.float64(value), variance, np.float64(1e6), np.float64(0.0), 3, 10_000_000)
    return Estimate(value, low, high, nan, 1e6, half / t, measured)


def claim(
    *,
    advantage: float = 0.4,
    p: float = 0.01,
    half: float = 0.1,
    loss: tuple[float, float, float] = (0.3, 0.25, 0.35),
    lost: tuple[float, float, float] = (0.75, 0.6, 0.9),
) -> Claim:
    return Claim(estimate(advantage, advantage - half, advantage + half), p, estimate(*loss), estimate(*lost))


SOUND = Trust()


@pytest.mark.parametrize(
    ("case", "word"),
    [
        (claim(), "masked"),
        (claim(lost=(0.75, 0.5 + TINY, 0.9)), "masked"),
        (claim(lost=(0.75, 0.5, 0.9)), "unresolved"),
        (claim(p=ALPHA - TINY), "masked"),
        (claim(p=ALPHA), "unresolved"),
        (claim(advantage=MARGIN - 0.1, p=ALPHA), "no claim"),
        (claim(advantage=0.02, p=0.0, half=0.03), "no claim"),  # more than zero, but too little to matter
        (claim(advantage=0.02, p=0.0, half=0.03 + TINY), "unresolved"),
        (claim(advantage=0.02, p=1.0, half=0.03), "no claim"),
        (claim(advantage=MARGIN - 0.1 + TINY, p=1.0), "no claim"),  # it is negative
        (claim(advantage=0.0, p=0.0), "no claim"),
        (claim(advantage=-0.4, p=0.0), "no claim"),
        (claim(advantage=TINY, p=0.0), "unresolved"),
        (claim(advantage=2 * MARGIN, p=0.0, half=MARGIN), "unresolved"),  # perhaps too little to matter
        (claim(advantage=2 * MARGIN, p=0.0, half=MARGIN - TINY), "masked"),
        (claim(lost=(0.3, 0.2, 0.4)), "partly masked"),
        (claim(lost=(0.3, 0.2, 0.5 - TINY)), "partly masked"),
        (claim(lost=(0.3, 0.2, 0.5)), "unresolved"),
        (claim(lost=(0.3, 0.2, 0.4), loss=(0.1, MARGIN + TINY, 0.2)), "partly masked"),
        (claim(lost=(0.3, 0.2, 0.4), loss=(0.1, MARGIN, 0.2)), "holds"),
        (claim(lost=(0.0, 0.0, 0.5 - TINY), loss=(0.0, -0.1, 0.1)), "holds"),
        (claim(lost=(0.0, 0.0, 0.5), loss=(0.0, -0.1, 0.1)), "unresolved"),
        (claim(lost=(0.4, 0.1, 0.8), loss=(0.1, 0.0, 0.3)), "unresolved"),
    ],
)
def test_a_claims_words(case: Claim, word: str) -> None:
    found, reason = claim_verdict(case, MARGIN, SOUND)
    assert found == word
    near = case.advantage.low <= MARGIN + TINY / 2
    assert ("lost share" in reason) == (word == "unresolved" and case.p < ALPHA and not near)
    assert ("one side of 5 points" in reason) == (word == "unresolved" and case.p < ALPHA and near)
    assert ("not shown to be above zero" in reason) == (word == "unresolved" and case.p >= ALPHA)


def test_why_a_claim_is_unresolved() -> None:
    case = claim(lost=(0.4, 0.104, 0.796), loss=(0.1, 0.0, 0.3))
    assert claim_verdict(case, MARGIN, SOUND)[1] == "claim: the lost share, 10 to 80%, is not on one side of half"


MASKED, PARTLY = claim(), claim(lost=(0.3, 0.2, 0.4))
HOLDS, NONE = claim(lost=(0.0, 0.0, 0.4), loss=(0.0, -0.1, 0.04)), claim(advantage=-0.4)


@pytest.mark.parametrize(
    ("trust", "words"),
    [
        (SOUND, ["masked", "partly masked", "holds", "no claim"]),
        (Trust(rule=False), ["masked", "unresolved", "unresolved", "no claim"]),
        (Trust(reference=False), ["unresolved", "unresolved", "unresolved", "no claim"]),
        (Trust(rule=False, reference=False), ["unresolved", "unresolved", "unresolved", "no claim"]),
        (Trust(reference_learnt=False), ["unresolved"] * 4),
    ],
)
def test_what_each_word_about_a_claim_has_to_trust(trust: Trust, words: list[str]) -> None:
    verdicts = [claim_verdict(case, MARGIN, trust) for case in (MASKED, PARTLY, HOLDS, NONE)]
    assert verdicts == [(word, "") for word in words]


def test_numbers_are_the_reason_where_they_would_not_do_either() -> None:
    wide = claim(lost=(0.4, 0.1, 0.8), loss=(0.1, 0.0, 0.3))
    assert claim_verdict(wide, MARGIN, Trust(rule=False))[1].startswith("claim: the lost share")


SMALL = "no difference beyond 5 points"


@pytest.mark.parametrize(
    ("low", "high", "p", "word"),
    [
        (-0.049, 0.049, 1.0, SMALL),
        (0.001, 0.049, 0.001, SMALL),  # decided first: it differs from zero, but by less than matters
        (-0.049, -0.001, 0.001, SMALL),
        (0.02, 0.08, 0.04, "more robust"),
        (-0.08, -0.02, 0.04, "less robust"),
        (0.02, 0.08, ALPHA, "unresolved"),
        (-0.08, -0.02, ALPHA, "unresolved"),
        (0.02, 0.08, ALPHA - TINY, "more robust"),
        (-0.001, 0.08, 0.01, "unresolved"),
        (-0.08, 0.001, 0.01, "unresolved"),
        (0.0, 0.08, 0.01, "unresolved"),
        (-0.08, 0.0, 0.01, "unresolved"),
        (-0.08, 0.08, 1.0, "unresolved"),
    ],
)
def test_the_net_effects_words(low: float, high: float, p: float, word: str) -> None:
    found = estimate((low + high) / 2, low, high)
    text, reason = net_effect(found, p, 1, MARGIN, SOUND)
    assert text == word
    assert ("the interval for this comparison" in reason) == (word == "unresolved")
    for trust in (Trust(rule=False), Trust(reference=False), Trust(reference_learnt=False)):
        assert net_effect(found, p, 1, MARGIN, trust) == ("unresolved", "")


def test_the_margin_itself_is_a_difference() -> None:
    for value in (0.02, -0.02):
        found = estimate(value, value - 0.01, value + 0.01)
        low, high = found.bounds(0.95)
        edge = max(abs(low), abs(high))
        assert net_effect(found, 1.0, 1, edge, SOUND)[0] == "unresolved"
        assert net_effect(found, 1.0, 1, edge + TINY, SOUND)[0].startswith("no difference beyond")


def test_more_comparisons_need_narrower_intervals() -> None:
    """At eight comparisons the interval is at 99.375%, whose normal quantile is 2.73 and not 1.96."""
    found = estimate(0.0, -0.03, 0.03)
    assert net_effect(found, 1.0, 1, MARGIN, SOUND)[0] == SMALL
    assert net_effect(found, 1.0, 8, 0.042, SOUND)[0] == "no difference beyond 4.2 points"
    word, reason = net_effect(found, 1.0, 8, 0.0415, SOUND)
    assert word == "unresolved"
    interval = "the interval for all 8 comparisons, -4.2 to +4.2 points"
    assert reason == f"net effect: {interval}, holds both 0 and 4.15 points or more"


def test_an_interval_ends_at_a_hundred_points() -> None:
    assert "-100.0 to +100.0 points" in net_effect(estimate(0.0, -1.5, 1.5), 1.0, 1, MARGIN, SOUND)[1]
