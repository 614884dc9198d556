"""What an audit compares: images, seeds, datasets, references and outcomes."""

import numpy as np
import pandas as pd
import pytest

from audit_records import AUDIT, HOLDING, MASKED, PLAIN, left, measured, record, relabelled, row_of, worse
from creditflow.core.errors import UserError
from creditflow.core.matched import matched_name
from creditflow.verdict.verdicts import audit


def test_images_that_are_wrong_before_an_attack_are_wrong_under_it() -> None:
    clean, attacked = [True, True, False, False], [True, False, True, False]  # one that is wrong ends right
    records = [
        record(rule, 0, attack, gradient, [rows])
        for rule in ("bp", "usf")
        for attack, gradient, rows in (("clean", "none", clean), ("pgd", "exact", attacked))
    ]
    frame = audit(records, AUDIT | {"attacks": ("pgd",)})
    assert frame["accuracy pgd exact"].tolist() == frame.worst.tolist() == [0.25] * 2 and set(frame.clean) == {0.5}
    with pytest.raises(UserError, match="usf: no clean record of seed 0"):
        audit([one for one in records if (one.keys.rule, one.keys.attack) != ("usf", "clean")], AUDIT)
    several = measured("bp", PLAIN) + [one for one in measured("frsf", PLAIN) if one.keys.attack != "clean"]
    with pytest.raises(UserError, match="frsf: no clean record of seed 0"):
        audit(several, AUDIT)


def test_only_images_that_every_attack_met_count() -> None:
    records = []
    for rule in ("bp", "other"):
        for attack, gradient, images in (("pgd", "exact", [3, 5, 7, 9]), ("square", "none", [1, 5, 9])):
            records.append(record(rule, 0, attack, gradient, [[image != 9 for image in images]], example=images))
        records.append(record(rule, 0, "clean", "none", [[True] * 10]))
    frame = audit(records, AUDIT)
    assert set(frame.n_images) == {2}
    assert set(frame.worst) == {0.5}
    other_seed = [relabelled(one, "other", 1) if one.keys.rule == "other" else one for one in records]
    with pytest.raises(UserError, match=r"other has seeds \[1\], bp has \[0\]: they cannot be paired"):
        audit(other_seed, AUDIT)
    with pytest.raises(UserError, match="no attack of the audit was run on bp, with which other is compared"):
        audit([one for one in records if one.keys.rule != "bp"], AUDIT)
    with pytest.raises(UserError, match="no image in common"):
        audit([*records, record("bp", 0, "transfer", "surrogate:twin", [[True]], example=[2])], AUDIT)


def test_a_rule_with_fewer_seeds_is_compared_with_the_references_models_of_these() -> None:
    records = measured("bp", PLAIN, seeds=(0, 1, 2)) + measured("frsf", PLAIN, seeds=(0, 2))
    row = row_of(records)
    assert (row.n_seeds, row.difference) == (2, 0)
    lacking = [one for one in records if (one.keys.rule, one.keys.attack, one.keys.seed) != ("frsf", "square", 2)]
    with pytest.raises(UserError, match="frsf: not all attacks of the audit were run with the same seeds"):
        audit(lacking, AUDIT)


def test_fresh_feedback_weights_are_a_control_and_no_part_of_the_worst_case() -> None:
    records = measured("bp", PLAIN) + measured("frsf", MASKED)
    control = [record(rule, seed, "pgd", "through:frsf", [[False] * 5]) for rule in ("bp", "frsf") for seed in range(3)]
    pd.testing.assert_frame_equal(audit(records + control, AUDIT), audit(records, AUDIT))


def test_datasets_may_be_chosen_and_those_without_attacks_are_left_out() -> None:
    records = measured("bp", PLAIN) + measured("frsf", MASKED)
    elsewhere = [
        record(
            one.keys.rule, one.keys.seed, one.keys.attack, one.keys.gradient, one.outcomes["correct"], dataset="other"
        )
        for one in records
    ]
    assert set(audit(records + elsewhere, AUDIT).dataset) == {"toy", "other"}
    assert set(audit(records + elsewhere, AUDIT | {"datasets": ["toy"]}).dataset) == {"toy"}
    clean = [one for one in elsewhere if one.keys.attack == "clean"]
    assert set(audit(records + clean, AUDIT).dataset) == {"toy"}


def test_an_epsilon_that_was_not_run_is_named() -> None:
    with pytest.raises(UserError, match=r"bp-0.json has no epsilon 0.2, which the audit compares; it has \[0.1\]"):
        audit(measured("bp", PLAIN), AUDIT | {"epsilons": [0.2]})


def test_a_reference_may_be_matched_in_accuracy() -> None:
    twin = matched_name("frsf")
    records = (
        measured("bp", PLAIN) + measured("frsf", HOLDING, clean=0.8) + measured(twin, worse(PLAIN, 0.03), clean=0.8)
    )
    frame = audit(records, AUDIT | {"reference": "matched"}).set_index("rule")
    assert frame.difference["frsf"] == pytest.approx(left(records, "frsf") - left(records, twin))
    assert frame.reference_clean["frsf"] == pytest.approx(frame.clean[twin])
    assert frame.net_effect["bp"] == frame.net_effect[twin] == ""
    # A control of which only the head is trained has no network matched to it: it is compared with backpropagation's.
    control = audit(records + measured("bp_head_only", HOLDING), AUDIT | {"reference": "matched"}).set_index("rule")
    assert control.difference["bp_head_only"] == pytest.approx(left(records, "frsf") - left(records, "bp"), abs=0.2)
    assert control.net_effect["bp_head_only"] != ""
    plain = audit(records, AUDIT).set_index("rule")
    assert plain.difference["frsf"] == pytest.approx(left(records, "frsf") - left(records, "bp"))
    assert plain.difference["frsf"] < frame.difference["frsf"] - 0.01
    assert plain.net_effect[twin] == ""
    without = [one for one in records if one.keys.rule != twin]
    with pytest.raises(
        UserError, match="no attack of the audit was run on bp_matched_frsf, with which frsf is compared"
    ):
        audit(without, AUDIT | {"reference": "matched"})


def test_average_precisions_are_compared_as_outcomes_are() -> None:
    rng = np.random.default_rng(0)
    base = rng.random((1, 200))
    settings = {"epsilons": [0.1], "attacks": ["hag", "sdha"], "claim": "hag"}
    records, expected = [], {}
    for rule, level in (("bp", 0.2), ("frsf", 0.6)):
        for seed in range(3):
            precisions = level + 0.3 * base + 0.02 * rng.random((1, 200))
            weaker = np.minimum(precisions + 0.01 * rng.random((1, 200)), 0.95)
            expected[rule, seed] = np.minimum(precisions, weaker).mean()
            records.append(record(rule, seed, "clean", "none", base * 0 + 0.95, outcome="ap"))
            records.append(record(rule, seed, "hag", "exact", precisions, outcome="ap"))
            records.append(record(rule, seed, "sdha", "exact", weaker, outcome="ap"))
    frame = audit(records, settings, outcome="ap", required=("own_code",)).set_index("rule")
    assert frame.net_effect["frsf"] == "more robust" and frame.claim_verdict["frsf"] == "holds"
    assert frame.worst["frsf"] == pytest.approx(np.mean([expected["frsf", seed] for seed in range(3)]))
    assert frame.worst_low["frsf"] < frame.worst["frsf"] < frame.worst_high["frsf"]
    with pytest.raises(UserError, match="has no outcomes called correct"):
        audit(records, settings)
