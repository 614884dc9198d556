"""Whether a worst case can be believed: the vetoes of guards, and of a reference that is no better than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from creditflow.attacks.kinds import kinds
from creditflow.verdict.outcomes import (
    Checks,
    Condition,
    Outcomes,
    better_without_gradient,
    deciding,
    signs,
    spelled,
    without_gradient,
)
from creditflow.verdict.statistics import accuracy

#: What a kind of attack is called in a reason.
_NAMES = {
    "scale_free": "attack that the logits' scale can't blind",
    "gradient_free": "attack without gradients",
    "transfer": "transfer attack",
    "own_code": "attack on the query's own code",
    "class_code": "attack on the code of the query's classes",
}


@dataclass(frozen=True)
class Evidence:
    """What attacks showed of one model, or of one rule's models of several seeds.

    Attributes:
        name: the rule.
        outcomes: the outcomes (seeds, images) of each condition.
        checks: what the records of each condition say under `checks`; under ("training", "none"), what is known of the
            training.
        parameters: the settings of the attack of each condition.
        clean: the outcomes (seeds, test images) without an attack.
        chance: accuracy of the best constant answer; None where there is no such thing.
    """

    name: str
    outcomes: Outcomes
    checks: Checks
    parameters: Mapping[Condition, Mapping[str, Any]]
    clean: NDArray[Any]
    chance: float | None = None


def problems(evidence: Evidence, required: Sequence[str]) -> list[str]:
    """Returns why the worst case of a model cannot be believed, in words; empty if it can.

    Args:
        evidence: what attacks showed of the model.
        required: the kinds of attack that a worst case needs (`attacks/kinds.py`).
    """
    checks, decisive = evidence.checks, deciding(evidence.outcomes)
    fired_for = {condition: signs(checks, condition) for condition in evidence.outcomes}
    texts = [
        f"the outputs are random ({spelled(condition)})"
        for condition, names in fired_for.items()
        if "randomised outputs" in names
    ][:1]
    texts += [
        f"{name} ({spelled(condition)})"
        for condition, names in fired_for.items()
        for name in names
        if name in ("unconfirmed gradients", "misleading gradients")
    ][:1]
    for kind in required:
        conditions = [condition for condition in evidence.outcomes if _is_of(kind, condition, evidence.parameters)]
        if not any(not fired_for[condition] for condition in conditions):
            texts.append(f"no {_NAMES[kind]} without a fired guard{_listed(conditions, fired_for)}")
    if fired_for[decisive]:
        texts.append(f"{spelled(decisive)} decides, where a guard fires: {', '.join(fired_for[decisive])}")
    stronger = [spelled(condition) for condition in better_without_gradient(evidence.outcomes)]
    return texts + [f"{name} is stronger than all attacks through the exact gradient" for name in stronger]


def _is_of(kind: str, condition: Condition, parameters: Mapping[Condition, Mapping[str, Any]]) -> bool:
    """Returns whether a condition is of a kind: through the exact gradient, or without any of the model's."""
    attack, gradient = condition
    usable = gradient == "exact" or without_gradient(condition)
    return usable and kind in kinds(attack, parameters.get(condition, {}))


def _listed(conditions: Sequence[Condition], fired_for: Mapping[Condition, Sequence[str]]) -> str:
    texts = [f"{spelled(condition)}: {', '.join(fired_for[condition])}" for condition in conditions]
    return f" ({'; '.join(texts)})" if texts else ""


def at_chance(evidence: Evidence, margin: float) -> str | None:
    """Returns, in words, that a clean accuracy is not shown to lie above chance; None if it is.

    It has to lie above chance by `margin` (a share) with all of its interval: what has learnt nothing has nothing to
    lose, and what always gives the same answer cannot be fooled. For average precisions their mean (mAP) stands in
    place of the accuracy.
    """
    if evidence.chance is None:
        return None
    clean = accuracy(evidence.clean)
    if clean.low > evidence.chance + margin:
        return None
    measure = "accuracy" if evidence.clean.dtype == bool else "mAP"
    shown = f"{100 * clean.value:.1f}% ({100 * clean.low:.1f} to {100 * clean.high:.1f})"
    return f"clean {measure} {shown} is not {100 * margin:g} points above chance ({100 * evidence.chance:.1f}%)"
