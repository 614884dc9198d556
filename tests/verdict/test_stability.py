"""Whether verdicts survive other seeds and images: on simulated outcomes with a known truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit_records import record
from creditflow.core.errors import UserError
from creditflow.records.record import Record
from creditflow.verdict.stability import contradicts, stability

AUDIT: dict[str, Any] = {"epsilons": [0.1], "attacks": ["pgd", "apgd_dlr", "square", "transfer"], "claim": "pgd"}
CONDITIONS = ("pgd exact", "apgd_dlr exact", "square none", "transfer surrogate:twin")
N_IMAGES = 600


def simulated(rule: str, worst: Sequence[float], claim: Sequence[float] | None = None) -> list[Record]:
    """Records of a rule whose accuracies in the worst case, and under the claim's attack, are these by seed."""
    rng = np.random.default_rng(len(rule))
    ease, records = rng.random(N_IMAGES), []
    for seed, share in enumerate(worst):
        jitter = 0.02 * rng.standard_normal(N_IMAGES)
        records.append(record(rule, seed, "clean", "none", [ease < 2], chance=0.2))
        for place, condition in enumerate(CONDITIONS):
            attack, gradient = condition.split()
            records.append(record(rule, seed, attack, gradient, [ease + jitter < share + 0.01 * place]))
        if claim is not None:
            records.append(record(rule, seed, "pgd", "feedback", [ease + jitter < claim[seed]]))
    return records


def of(frame: pd.DataFrame, word: str) -> pd.Series:
    (row,) = (row for _, row in frame.iterrows() if row.word == word)
    return row


def test_a_large_effect_is_seen_by_every_triple_and_half() -> None:
    records = simulated("bp", [0.1] * 5) + simulated("frsf", [0.6] * 5, [0.9] * 5)
    frame = stability(records, AUDIT, halves=5)
    claim, net = of(frame, "claim_verdict"), of(frame, "net_effect")
    assert net.whole == "more robust" and claim.whole == "partly masked"
    for row in (claim, net):
        assert (row.triples_n, row.halves_n, row.fixed_n) == (10, 5, 2)
        assert row.triples_contradict == row.halves_contradict == row.fixed_contradict == 0


def test_an_effect_that_depends_on_the_seed_contradicts_itself() -> None:
    """More than half of the claim is lost at three seeds of ten, and a fifth of it at the others.

    So the whole run says "partly masked". The one triple of the three seeds says "masked"; no other triple has another
    word than the whole run.
    """
    worst = [0.62] * 3 + [0.8] * 7
    records = simulated("bp", [0.4] * 10) + simulated("frsf", worst, [0.9] * 10)
    frame = stability(records, AUDIT, halves=1)
    claim, net = of(frame, "claim_verdict"), of(frame, "net_effect")
    assert claim.whole == "partly masked" and claim.triples_n == 120
    assert claim.triples_contradict == pytest.approx(1 / 120)
    assert net.whole == "more robust"
    # Triples of two of the three seeds and one of the seven have no word, and so contradict nothing.
    assert net.triples_contradict == 0 and net.triples_unresolved == pytest.approx(3 * 7 / 120)


def test_halves_that_differ_contradict_each_other() -> None:
    """The claim holds on one half of the images, and the whole run says so; the other half has no claim at all."""
    reference = simulated("bp", [0.3] * 4)
    rule = simulated("frsf", [0.9] * 4, [0.91] * 4)
    for member in rule:
        if member.keys.attack != "clean":
            member.outcomes["correct"][:, N_IMAGES // 2 :] &= reference[1].outcomes["correct"][:, N_IMAGES // 2 :]
    claim = of(stability(reference + rule, AUDIT, halves=1), "claim_verdict")
    assert claim.whole == "holds" and claim.fixed_contradict == 0.5


def test_words_that_contradict() -> None:
    assert contradicts("masked", "holds") and contradicts("more robust", "no difference beyond 5 points")
    assert not contradicts("masked", "masked")
    assert not contradicts("unresolved", "holds") and not contradicts("holds", "unresolved")


def test_parts_are_drawn_the_same_each_time() -> None:
    records = simulated("bp", [0.4] * 4) + simulated("frsf", [0.45] * 4, [0.6] * 4)
    first, second = (stability(records, AUDIT, halves=3, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_three_seeds_and_unequal_seeds_are_refused() -> None:
    for seeds in ((3, 3), (5, 4)):
        records = simulated("bp", [0.1] * seeds[0]) + simulated("frsf", [0.6] * seeds[1], [0.9] * seeds[1])
        with pytest.raises(UserError, match=r"stability needs more than 3 seeds, the same for all networks; all .*2"):
            stability(records, AUDIT, halves=1)
