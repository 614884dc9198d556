"""Vetoes at their boundaries, and their words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from creditflow.verdict.outcomes import better_without_gradient, deciding, guards, spelled, worst_case
from creditflow.verdict.soundness import Evidence, at_chance, problems
from creditflow.verdict.statistics import accuracy

CLEAN = np.arange(300)[None, :] < np.array([150, 160, 170])[:, None]


def evidence(**facts: dict[str, float]) -> Evidence:
    """A model that each attack fools on more images than the one before; `facts` are checks of attacks."""
    levels = {("square", "none"): 120, ("transfer", "surrogate:twin"): 100, ("pgd", "exact"): 60}
    levels |= {("pgd", "feedback"): 90, ("apgd_dlr", "exact"): 40}
    outcomes = {condition: CLEAN & (np.arange(300) < level) for condition, level in levels.items()}
    checks = {condition: [{}, facts.get(condition[0], {}), {}] for condition in levels}
    return Evidence("frsf", outcomes, checks, {}, CLEAN, chance=0.1)


REQUIRED = ("scale_free", "gradient_free", "transfer")


def test_a_sound_worst_case_has_no_problem() -> None:
    sound = evidence()
    assert problems(sound, REQUIRED) == [] and at_chance(sound, 0.05) is None
    assert guards(sound.outcomes, sound.checks) == []
    assert deciding(sound.outcomes) == ("apgd_dlr", "exact")
    assert np.array_equal(worst_case(sound.outcomes), sound.outcomes["apgd_dlr", "exact"])


def test_random_outputs_are_named_once() -> None:
    random = {"randomised_outputs": 0.5}
    assert problems(evidence(pgd=random, square=random), ())[0] == "the outputs are random (square)"
    assert len(problems(evidence(pgd=random, square=random), ())) == 1


@pytest.mark.parametrize("sign", ["unconfirmed_gradients", "misleading_gradients"])
def test_a_gradient_that_is_not_what_it_seems_is_named_wherever_it_was_seen(sign: str) -> None:
    texts = problems(evidence(pgd={sign: 0.5}), REQUIRED)
    assert texts == [f"{sign.replace('_', ' ')} (pgd exact)"]


def test_a_kind_whose_attacks_all_fail_is_named_with_their_guards() -> None:
    texts = problems(evidence(square={"failed_starts": 1.0}), REQUIRED)
    assert texts == ["no attack without gradients without a fired guard (square: failed starts)"]
    both = problems(evidence(apgd_dlr={"zero_gradients": 1.0, "unconverged": 0.2}), ())
    assert both == ["apgd_dlr exact decides, where a guard fires: not converged, zero gradients"]


@pytest.mark.parametrize("below", [0.0, 1e-9])
def test_a_reference_must_lie_above_chance_with_all_of_its_interval(below: float) -> None:
    clean = accuracy(CLEAN)
    near = replace(evidence(), chance=clean.low - below)
    text = at_chance(near, 0.0)
    assert (text is None) == (below > 0)
    numbers = f"{100 * clean.value:.1f}% ({100 * clean.low:.1f} to {100 * clean.high:.1f})"
    text = at_chance(near, 0.04)
    assert text == f"clean accuracy {numbers} is not 4 points above chance ({100 * near.chance:.1f}%)"
    precisions = replace(near, clean=np.where(CLEAN, 0.8, 0.2))
    assert str(at_chance(precisions, 0.5)).startswith("clean mAP 52.0% (")
    assert at_chance(replace(near, chance=None), 0.5) is None


def test_a_bound_of_zero_excludes_no_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stub:
        low = 0.0

    chosen = evidence()
    outcomes: dict[Any, Any] = dict(chosen.outcomes) | {("fgsm", "exact"): chosen.outcomes["square", "none"]}
    monkeypatch.setattr("creditflow.verdict.outcomes.difference", lambda first, second: Stub)
    assert better_without_gradient(outcomes) == [] and guards(outcomes, {}) == []
    Stub.low = 1e-9
    fired = [
        "pgd weaker than fgsm",
        "square stronger than white-box",
        "transfer surrogate:twin stronger than white-box",
    ]
    assert guards(outcomes, {}) == fired
    monkeypatch.undo()


def test_equally_strong_attacks_are_in_the_order_of_their_names() -> None:
    same = np.zeros((1, 5), bool)
    assert deciding({("square", "none"): same, ("pgd", "exact"): same}) == ("pgd", "exact")
    assert better_without_gradient({("square", "none"): same}) == []
    assert [spelled(condition) for condition in (("pgd", "exact"), ("square", "none"))] == ["pgd exact", "square"]
