"""What the outcomes of several attacks together say of a model: its worst case, and guards of their order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditflow.core.gradients import parse_gradient
from creditflow.records.guards import fired, in_words
from creditflow.verdict.statistics import difference

#: Attack and attacker's gradient.
Condition = tuple[str, str]

#: Outcomes (seeds, images) by condition: true where the attack did not fool the model on the image; for queries of a
#: retrieval, the average precision that is left.
Outcomes = Mapping[Condition, NDArray[Any]]

#: What the records of a condition, one for each seed, say under `checks`.
Checks = Mapping[Condition, Sequence[Mapping[str, Any]]]


def worst_case(outcomes: Outcomes) -> NDArray[Any]:
    """Returns (seeds, images): the least outcome of each image under all attacks, so false if any attack fools it."""
    least: NDArray[Any] = np.minimum.reduce(list(outcomes.values()))
    return least


def spelled(condition: Condition) -> str:
    """Returns a condition in words: the attack, and its gradient if it uses any."""
    attack, gradient = condition
    return attack if gradient == "none" else f"{attack} {gradient}"


def deciding(outcomes: Outcomes) -> Condition:
    """Returns the condition under which the mean is lowest: it contributes most to the worst case."""
    return min(outcomes, key=lambda condition: (outcomes[condition].mean(), condition))


def signs(checks: Checks, condition: Condition) -> list[str]:
    """Returns the guards that fire for a record of a condition, in words."""
    return sorted({in_words(sign) for facts in checks.get(condition, ()) for sign in fired(facts)})


#: Pairs of a weaker and a stronger attack: accuracy (or mAP) under the second ought not to be higher than under the
#: first.
_RANKING = (("fgsm", "pgd"), ("pgd", "apgd_ce"), ("hag", "hag_100"), ("sdha", "sdha_100"))


def guards(outcomes: Outcomes, checks: Checks) -> list[str]:
    """Returns the guards that fire: those of single records, and those of attacks whose order is wrong."""
    texts = [f"{sign} ({spelled(condition)})" for condition in checks for sign in signs(checks, condition)]
    for weaker, stronger in _RANKING:
        pair = outcomes.get((stronger, "exact")), outcomes.get((weaker, "exact"))
        if pair[0] is not None and pair[1] is not None and difference(pair[0], pair[1]).low > 0:
            texts.append(f"{stronger} weaker than {weaker}")
    return texts + [f"{spelled(condition)} stronger than white-box" for condition in better_without_gradient(outcomes)]


def better_without_gradient(outcomes: Outcomes) -> list[Condition]:
    """Returns the attacks without the model's gradient that beat all attacks through its exact gradient together.

    An attack beats them if the mean under it is lower and the interval of this difference excludes zero. That is the
    plainest sign of a model that hides its gradient (Athalye et al., 2018).
    """
    exact = {condition: outcome for condition, outcome in outcomes.items() if condition[1] == "exact"}
    if not exact:
        return []
    white_box = worst_case(exact)
    others = [condition for condition in outcomes if without_gradient(condition)]
    return [condition for condition in others if difference(white_box, outcomes[condition]).low > 0]


def without_gradient(condition: Condition) -> bool:
    """Returns whether an attack uses no gradient of the attacked model; a surrogate's gradient is none of it."""
    return parse_gradient(condition[1]).kind in ("none", "surrogate")
