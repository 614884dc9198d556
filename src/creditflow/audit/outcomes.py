"""What the outcomes of several attacks together say of a model: its worst case, and guards."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditflow.audit.statistics import paired_difference
from creditflow.records.guards import fired

#: Attack and attacker's gradient.
Condition = tuple[str, str]

#: Outcomes (seeds, images) by condition: true where the attack did not fool the model on the image.
Outcomes = Mapping[Condition, NDArray[np.bool_]]


def worst_case(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Returns (seeds, images): true where no attack of the set fooled the model on the image."""
    survived: NDArray[np.bool_] = np.logical_and.reduce(list(outcomes.values()))
    return survived


def decided_by(outcomes: Outcomes) -> str:
    """Returns the attack under which accuracy is lowest: it contributes most to the worst case."""
    attack, gradient = min(outcomes, key=lambda condition: (outcomes[condition].mean(), condition))
    return f"{attack} {gradient}" if gradient != "none" else attack


#: Pairs of a weaker and a stronger attack: accuracy under the second ought not to be higher than under the first.
_RANKING = (("fgsm", "pgd"), ("pgd", "apgd_ce"))
_BLACK_BOX = ("square", "transfer")


def guards(outcomes: Outcomes, checks: Mapping[Condition, list[dict[str, Any]]]) -> list[str]:
    """Returns the guards that fire: those of single records, and those of attacks whose order is wrong."""
    texts = []
    for condition, facts in checks.items():
        signs = sorted({sign for fact in facts for sign in fired(fact)})
        texts += [f"{sign} ({' '.join(condition)})" for sign in signs]
    exact = _exact(outcomes)
    for weaker, stronger in _RANKING:
        if weaker in exact and stronger in exact and paired_difference(exact[stronger], exact[weaker]).low > 0:
            texts.append(f"{stronger} weaker than {weaker}")
    return texts + [f"{attack} stronger than white-box" for attack in _better_without_gradient(outcomes)]


def hides_gradient(outcomes: Outcomes) -> bool:
    """Says whether a model hides its gradient, which is the plainest sign of gradient masking.

    It does if accuracy under an attack that uses no gradient of the model is lower than under all attacks together that
    use its exact gradient, and the interval of this difference excludes zero.
    """
    return bool(_better_without_gradient(outcomes))


def _better_without_gradient(outcomes: Outcomes) -> list[str]:
    exact = _exact(outcomes)
    if not exact:
        return []
    white_box = worst_case({(attack, "exact"): outcome for attack, outcome in exact.items()})
    others = [attack for attack in _BLACK_BOX if (attack, "none") in outcomes]
    return [attack for attack in others if paired_difference(white_box, outcomes[attack, "none"]).low > 0]


def _exact(outcomes: Outcomes) -> dict[str, NDArray[np.bool_]]:
    return {attack: outcome for (attack, gradient), outcome in outcomes.items() if gradient == "exact"}
