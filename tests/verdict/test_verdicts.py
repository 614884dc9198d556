"""The audit on outcomes whose answer is known: verdicts, vetoes, pairs and columns."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audit_records import AUDIT, HOLDING, MASKED, N_IMAGES, PLAIN, measured, relabelled, row_of, worse
from creditflow.records.record import Record
from creditflow.verdict.statistics import accuracy, difference, lost_share
from creditflow.verdict.verdicts import COLUMNS, audit

#: The two networks, changed about.
NAMES = {"bp": "frsf", "frsf": "bp"}


def words(shares: Mapping[str, float], reference: Mapping[str, float] = PLAIN, **facts: Any) -> tuple[str, str]:
    row = row_of(measured("bp", reference) + measured("frsf", shares, **facts))
    return row.claim_verdict, row.net_effect


def test_words_say_what_is_known_of_outcomes() -> None:
    assert words(MASKED) == ("masked", "no difference beyond 5 points")
    assert words(PLAIN) == ("no claim", "no difference beyond 5 points")
    assert words(HOLDING) == ("holds", "more robust")
    assert words({**HOLDING, "pgd feedback": 0.55}) == ("partly masked", "more robust")
    assert words({**HOLDING, "pgd feedback": 0.65}) == ("unresolved", "more robust")  # perhaps half of it is lost
    assert words({**PLAIN, "pgd feedback": 0.125}) == ("no claim", "no difference beyond 5 points")


def test_masked_never_hides_a_loss() -> None:
    """A rule that loses 27 points in the worst case is less robust, whatever became of its claim."""
    strong = {name: share + 0.4 for name, share in PLAIN.items()}
    row = row_of(measured("bp", strong) + measured("frsf", {**worse(strong, 0.27), "pgd feedback": 0.9}))
    assert (row.claim_verdict, row.net_effect) == ("masked", "less robust")
    assert row.difference == pytest.approx(-0.27, abs=0.03)
    assert row.lost_share == 1


def test_a_row_has_the_numbers_of_its_statistics() -> None:
    records = measured("bp", PLAIN) + measured("frsf", MASKED)
    frame = audit(records, AUDIT)
    assert list(frame.columns)[: len(COLUMNS)] == COLUMNS
    assert {name for name in frame if name.startswith("accuracy ")} == {f"accuracy {name}" for name in MASKED}

    def stacked(rule: str, *conditions: str) -> np.ndarray:
        chosen = [
            [
                one.outcomes["correct"][0]
                for one in records
                if f"{one.keys.rule} {one.keys.attack} {one.keys.gradient}" == f"{rule} {name}"
            ]
            for name in ("clean none", *conditions)
        ]
        return np.logical_and.reduce(np.array(chosen))

    rule, reference = stacked("frsf", *MASKED), stacked("bp", *PLAIN)
    claims = stacked("frsf", "pgd feedback"), stacked("bp", "pgd exact")
    row = frame[frame.rule == "frsf"].iloc[0]
    worst, net, claim = accuracy(rule), difference(rule, reference), difference(*claims)
    assert (row.worst, row.worst_low, row.worst_high) == (worst.value, worst.low, worst.high)
    assert (row.difference, row.low, row.high, row.p) == (net.value, net.low, net.high, net.p)
    assert (row.family_low, row.family_high) == net.bounds(0.95)
    assert (row.claim_difference, row.claim_low, row.claim_high, row.claim_p) == (
        claim.value,
        claim.low,
        claim.high,
        claim.p,
    )
    lost = lost_share(claims, (rule, reference))
    assert (row.lost_share, row.lost_low, row.lost_high) == (lost.value, lost.low, lost.high)
    assert row.loss == pytest.approx(claim.value - net.value)
    assert row.loss_low < row.loss < row.loss_high
    assert row.clean == np.mean(stacked("frsf")) and row.reference_clean == np.mean(stacked("bp"))
    assert (row.claim, row.decided_by, row.scope) == ("pgd feedback", "apgd_dlr exact", "any seed")
    assert (row.n_images, row.n_seeds, row.margin, row.sound, row.reason) == (N_IMAGES, 3, 5.0, True, "")
    of_bp = frame[frame.rule == "bp"].iloc[0]
    assert (of_bp.claim_verdict, of_bp.net_effect, of_bp.reason, of_bp.claim) == ("", "", "", "pgd exact")
    assert of_bp.sound
    assert all(np.isnan(of_bp[["difference", "p", "lost_share", "reference_clean", "claim_p", "loss"]].astype(float)))


def test_the_comparisons_of_an_audit_share_its_errors() -> None:
    alone = row_of(measured("bp", PLAIN) + measured("frsf", MASKED))
    records = [*measured("bp", PLAIN), *measured("frsf", MASKED), *measured("usf", PLAIN), *measured("fa", MASKED)]
    row = row_of(records)
    assert row.p == pytest.approx(min(1, 3 * alone.p))
    assert row.claim_p == pytest.approx(3 * alone.claim_p)
    assert row.family_low < alone.family_low
    assert (row.low, row.high) == (alone.low, alone.high)


def test_no_interval_goes_beyond_a_hundred_points() -> None:
    """Three seeds that contradict each other tell nothing."""
    records = []
    for rule, by_seed in (("bp", [0.0, 1.0, 0.0]), ("frsf", [1.0, 0.0, 1.0])):
        for seed, share in enumerate(by_seed):
            records += measured(rule, dict.fromkeys(PLAIN, share), seeds=[seed])
    for row in (row_of(records), row_of([relabelled(one, NAMES[one.keys.rule], one.keys.seed) for one in records])):
        assert (row.low, row.high, row.family_low, row.family_high) == (-1, 1, -1, 1)
        assert row.net_effect == "unresolved"


def test_rule_and_reference_change_places() -> None:
    records = measured("bp", PLAIN) + measured("frsf", HOLDING | {"pgd exact": 0.42})
    swapped = [
        relabelled(one, NAMES[one.keys.rule], one.keys.seed) for one in records if one.keys.gradient != "feedback"
    ]
    row, mirrored = row_of([one for one in records if one.keys.gradient != "feedback"]), row_of(swapped)
    assert (row.net_effect, mirrored.net_effect) == ("more robust", "less robust")
    assert mirrored.difference == pytest.approx(-row.difference)
    assert (mirrored.low, mirrored.high, mirrored.p) == pytest.approx((-row.high, -row.low, row.p))


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2)])
def test_few_seeds_speak_of_these_networks_only(seeds: tuple[int, ...]) -> None:
    row = row_of(measured("bp", PLAIN, seeds=seeds) + measured("frsf", MASKED, seeds=seeds))
    assert row.scope == ("any seed" if len(seeds) == 3 else "these networks only")
    assert (row.claim_verdict, row.net_effect) == ("masked", "no difference beyond 5 points")


# --- vetoes -------------------------------------------------------------------------------------------------------


def vetoed(facts: dict[str, object], condition: str = "apgd_dlr exact", rule: str = "frsf", shares: Any = None) -> Any:
    checks = {condition: facts}
    of_rule = measured("frsf", shares or HOLDING, checks=checks if rule == "frsf" else {})
    return row_of(measured("bp", PLAIN, checks=checks if rule == "bp" else {}) + of_rule)


@pytest.mark.parametrize(
    ("facts", "sign"),
    [
        ({"zero_gradients": 0.011}, "zero gradients"),
        ({"saturated_loss": 0.051}, "saturated loss"),
        ({"nonfinite_gradients": 0.001}, "nonfinite gradients"),
        ({"unconverged": 0.011}, "not converged"),
        ({"only_without_gradient": 0.021}, "fooled only without gradients"),
    ],
)
@pytest.mark.parametrize("rule", ["frsf", "bp"])
def test_a_guard_of_a_needed_attack_vetoes(facts: dict[str, object], sign: str, rule: str) -> None:
    row = vetoed(facts, rule=rule)
    assert (row.claim_verdict, row.net_effect, row.sound) == ("unresolved", "unresolved", False)
    missing = f"{rule}: no attack that the logits' scale can't blind without a fired guard (apgd_dlr exact: {sign})"
    assert row.reason.split("; ") == [missing, f"{rule}: apgd_dlr exact decides, where a guard fires: {sign}"]
    at_limit = {name: round(value - 0.001, 3) for name, value in facts.items() if isinstance(value, float)}
    assert vetoed(at_limit, rule=rule).net_effect == "more robust"


@pytest.mark.parametrize("sign", ["unconverged", "only_without_gradient"])
@pytest.mark.parametrize(("shares", "sound"), [((0.0, 0.0, 0.03), True), ((0.0, 0.0, 0.09), False)])
def test_shares_of_an_epsilon_count_as_their_mean_over_seeds(sign: str, shares: tuple[float, ...], sound: bool) -> None:
    """The largest share over epsilons and seeds says nothing of the accuracy that a verdict compares."""
    records = measured("bp", PLAIN) + measured("frsf", HOLDING)
    for record in records:
        if (record.keys.rule, record.keys.attack) == ("frsf", "apgd_dlr"):
            record.content["checks"] |= {sign: 0.5, "at_epsilon": {sign: [shares[record.keys.seed]]}}
    row = row_of(records)
    assert (row.sound, row.net_effect) == (sound, "more robust" if sound else "unresolved")
    assert ("fired guard" in row.reason) is not sound


def test_a_share_belongs_to_its_own_epsilon() -> None:
    """A guard at one epsilon leaves the verdict at another epsilon as it is."""
    small, large = row_by_epsilon({"at_epsilon": {"unconverged": [0.0, 0.5]}, "unconverged": 0.5})
    assert (small.sound, large.sound) == (True, False)


def row_by_epsilon(facts: dict[str, object]) -> list[Any]:
    records = measured("bp", PLAIN) + measured("frsf", HOLDING, checks={"apgd_dlr exact": facts})
    both = [replace_sizes(record) for record in records]
    frame = audit(both, AUDIT | {"epsilons": [0.1, 0.2]})
    return list(frame[frame.rule == "frsf"].itertuples())


def replace_sizes(record: Record) -> Record:
    """The same outcomes at two epsilons."""
    if record.keys.attack == "clean":
        return record
    metrics = (record.metrics[0], replace(record.metrics[0], epsilon=0.2))
    outcomes = record.outcomes | {"correct": record.outcomes["correct"].repeat(2, axis=0)}
    return replace(record, metrics=metrics, outcomes=outcomes)


def test_masked_is_said_even_if_the_rules_worst_case_is_too_weak() -> None:
    row = vetoed({"zero_gradients": 0.5}, shares=MASKED)
    assert (row.claim_verdict, row.net_effect) == ("masked", "unresolved")
    assert vetoed({"zero_gradients": 0.5}, rule="bp", shares=MASKED).claim_verdict == "unresolved"


def test_a_guard_of_another_attack_does_not_veto() -> None:
    assert vetoed({"zero_gradients": 0.5}, "pgd feedback").net_effect == "more robust"
    assert vetoed({"saturated_loss": 0.5}, "pgd exact").net_effect == "more robust"
    assert "saturated loss (pgd exact)" in vetoed({"saturated_loss": 0.5}, "pgd exact").guards


def test_random_outputs_veto_wherever_they_are_seen() -> None:
    row = vetoed({"randomised_outputs": 0.001}, "pgd feedback")
    assert (row.net_effect, row.reason) == ("unresolved", "frsf: the outputs are random (pgd feedback)")


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ("apgd_dlr", "no attack that the logits' scale can't blind without a fired guard"),
        ("square", "no attack without gradients without a fired guard"),
        ("transfer", "no transfer attack without a fired guard"),
    ],
)
def test_a_worst_case_needs_every_kind_of_attack(attack: str, text: str) -> None:
    attacks = [name for name in AUDIT["attacks"] if name != attack]
    row = row_of(measured("bp", PLAIN) + measured("frsf", HOLDING), attacks=attacks)
    assert (row.net_effect, row.reason) == ("unresolved", f"bp: {text}" and f"frsf: {text}; bp: {text}")
    nothing = row_of(measured("bp", PLAIN) + measured("frsf", HOLDING), attacks=["pgd"])
    assert nothing.net_effect == "unresolved"
    frame = audit(measured("bp", PLAIN) + measured("frsf", HOLDING), AUDIT | {"attacks": attacks}, required=())
    assert frame.net_effect.tolist() == ["", "more robust"]


@pytest.mark.parametrize("condition", ["square none", "transfer surrogate:twin", "transfer surrogate:other_seed"])
def test_a_hidden_gradient_vetoes(condition: str) -> None:
    """An attack that uses no gradient of the model beats those that do."""
    hidden = {**HOLDING, condition: 0.3}
    row = row_of(measured("bp", PLAIN) + measured("frsf", hidden))
    name = condition.removesuffix(" none")
    assert row.net_effect == "unresolved"
    assert row.reason == f"frsf: {name} is stronger than all attacks through the exact gradient"
    assert f"{name} stronger than white-box" in row.guards


def test_a_reference_at_chance_settles_nothing() -> None:
    for clean, word in ((0.2, "unresolved"), (0.25, "unresolved"), (0.4, "more robust")):
        records = measured("bp", dict.fromkeys(PLAIN, 0.05), clean=clean) + measured("frsf", HOLDING)
        row = row_of(records)
        assert row.net_effect == word
        assert ("points above chance (20.0%)" in row.reason) == (word == "unresolved")
        assert row.claim_verdict == ("unresolved" if word == "unresolved" else row.claim_verdict)
    # The margin is the audit's.
    close = measured("bp", dict.fromkeys(PLAIN, 0.05), clean=0.4) + measured("frsf", HOLDING)
    assert "is not 30 points above chance" in row_of(close, margin=30).reason


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_gradient_below_weight_decay_is_told_of_the_rule_and_vetoes_nothing(share: float) -> None:
    records = measured("bp", PLAIN) + measured("frsf", HOLDING)
    before = row_of(records)
    for member in records:
        if member.keys.rule == "frsf" and member.keys.attack == "clean" and member.keys.seed == 1:
            member.content["checks"]["below_decay"] = share
    row = row_of(records)
    assert row.guards == ("gradient below weight decay (training)" if share else "")
    assert (row.claim_verdict, row.net_effect, row.sound) == (before.claim_verdict, before.net_effect, before.sound)
    assert row_of(records, "bp").guards == ""


def test_guards_fire_for_attacks_whose_order_is_wrong() -> None:
    attacks = ["fgsm", "pgd", "apgd_ce"]

    def fired(fgsm: float, pgd: float, apgd: float) -> str:
        shares = {"fgsm exact": fgsm, "pgd exact": pgd, "apgd_ce exact": apgd}
        return str(row_of(measured("bp", shares), "bp", attacks=attacks).guards)

    assert fired(0.5, 0.3, 0.2) == ""
    assert fired(0.3, 0.5, 0.2) == "pgd weaker than fgsm"
    assert fired(0.5, 0.2, 0.4) == "apgd_ce weaker than pgd"
