"""Verdicts that an earlier audit got wrong, as outcomes with the numbers of the time; each has its right words now."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from audit_records import record
from creditflow.records.record import Record
from creditflow.verdict.verdicts import audit

AUDIT: dict[str, Any] = {"epsilons": [0.1], "attacks": ["pgd", "apgd_dlr", "square", "transfer"], "claim": "pgd"}
N_IMAGES = 200

#: Percentages of right images by seed.
Percentages = Mapping[str, Sequence[float]]


def outcomes(
    rule: str, percentages: Percentages, n_images: int = N_IMAGES, **facts: Mapping[str, float]
) -> list[Record]:
    """Records of a rule. Images that are right in one record are so in all with a higher percentage."""
    records = []
    for condition, by_seed in ({"clean none": [90] * 3} | dict(percentages)).items():
        attack, gradient = condition.split()
        for seed, percentage in enumerate(by_seed):
            right = np.arange(n_images) < round(percentage * n_images / 100)
            chance = {"chance": 0.1} if attack == "clean" else {}
            records.append(record(rule, seed, attack, gradient, [right], **chance, **facts.get(attack, {})))
    return records


def attacked(worst: Sequence[float], claim: Sequence[float], claimed_by: str = "pgd feedback") -> dict[str, Any]:
    """Percentages under each attack of a model with these in the worst case, and under the claim's attack."""
    above = [min(share + 3, 90) for share in worst]
    shares = {"apgd_dlr exact": worst, "pgd exact": above, "square none": above, "transfer surrogate:twin": above}
    return {**shares, claimed_by: claim}


def verdict(rule: Percentages, reference: Percentages, n_images: int = N_IMAGES, **keys: Any) -> pd.Series:
    records = outcomes("bp", reference, n_images) + outcomes("frsf", rule, n_images)
    return audit(records, AUDIT | keys).set_index("rule").loc["frsf"]


def reference(worst: Sequence[float], claim: Sequence[float]) -> dict[str, Any]:
    return attacked(worst, claim, "pgd exact")


def test_a_claim_of_which_much_is_left_is_not_masked() -> None:
    """The advantage is 80 points. What is left is 15, 30 and 45 points by seed, which no three seeds call little."""
    row = verdict(attacked([20, 35, 50], [85, 85, 85]), reference([5, 5, 5], [5, 5, 5]))
    assert row.claim_difference == pytest.approx(0.80)
    assert (row.claim_verdict, row.net_effect) == ("unresolved", "unresolved")
    assert "the lost share" in row.reason


def test_a_claim_that_keeps_47_of_62_points_is_not_masked() -> None:
    row = verdict(attacked([55, 55, 55], [70, 70, 70]), reference([8, 8, 8], [8, 8, 8]))
    assert row.lost_share == pytest.approx(15 / 62)
    assert (row.claim_verdict, row.net_effect) == ("partly masked", "more robust")


def test_an_effect_that_stronger_attacks_leave_alone_is_not_masked() -> None:
    """The difference was +6.3 points, and +10.0 and +6.5 under stronger attacks; the advantage was some 20."""
    row = verdict(attacked([36, 40, 37], [55, 52, 54]), reference([30, 30, 30.5], [32, 33, 32]))
    assert (row.claim_verdict, row.net_effect) == ("unresolved", "more robust")


@pytest.mark.parametrize("clean_claim", [False, True])
def test_masked_does_not_hide_a_loss_of_27_points(clean_claim: bool) -> None:
    weak = attacked([23, 25, 22], [75, 74, 76] if clean_claim else [23, 25, 22])
    row = verdict(weak, reference([50, 51, 49], [55, 55, 55]))
    assert row.claim_verdict == ("masked" if clean_claim else "no claim")
    assert (row.net_effect, round(row.difference, 3)) == ("less robust", -0.267)


def test_a_reference_that_is_right_for_10_point_8_percent_of_ten_classes_settles_nothing() -> None:
    dead = {name: [10, 10.5, 10] for name in reference([0] * 3, [0] * 3)} | {"clean none": [10.5, 11, 11]}
    row = verdict(attacked([40, 40, 40], [60, 60, 60]), dead)
    assert (row.claim_verdict, row.net_effect) == ("unresolved", "unresolved")
    assert "bp: clean accuracy 10.8%" in row.reason and "is not 5 points above chance (10.0%)" in row.reason


@pytest.mark.parametrize("by_seed", [(1, 4, 6.5), (2, 3.5, 6), (6, 2, 3.5)])
def test_three_seeds_of_200_images_do_not_carry_4_points(by_seed: tuple[float, ...]) -> None:
    """One processor gave "more robust", another "masked". What they give now cannot contradict each other."""
    row = verdict(
        attacked([10 + more for more in by_seed], [60, 58, 62]), reference([10, 10, 10], [10, 10, 10]), margin=3.0
    )
    assert (row.claim_verdict, row.net_effect) == ("masked", "unresolved")


def test_large_logits_are_not_robust_where_only_weak_attacks_saw_them() -> None:
    """Decisions are those of the reference. APGD's gradient is zero, and Square's 50 queries are too few."""
    settings = {"attacks": ["pgd", "apgd_ce", "square"], "epsilons": [0.1], "claim": "pgd"}
    plain = {"pgd exact": [30] * 2, "apgd_ce exact": [26] * 2, "square none": [45] * 2}
    large = {"pgd exact": [85] * 2, "apgd_ce exact": [85] * 2, "square none": [45] * 2}
    blind = {"zero_gradients": 0.95, "saturated_loss": 0.95}
    records = outcomes("bp", plain | {"clean none": [90] * 2})
    records += outcomes("frsf", large | {"clean none": [90] * 2}, pgd=blind, apgd_ce=blind)
    for required in (["scale_free", "gradient_free", "transfer"], ["gradient_free"], []):
        row = audit(records, settings, required=required).set_index("rule").loc["frsf"]
        assert row.difference == pytest.approx(0.19)
        assert row.net_effect == "unresolved" and row.claim_verdict != "holds"
        assert "square is stronger than all attacks through the exact gradient" in row.reason


def test_two_seeds_speak_of_two_networks() -> None:
    row = verdict(
        attacked([23, 40], [75, 74]) | {"clean none": [90, 90]},
        reference([50, 51], [55, 55]) | {"clean none": [90, 90]},
    )
    assert (row.scope, row.net_effect) == ("these networks only", "less robust")
