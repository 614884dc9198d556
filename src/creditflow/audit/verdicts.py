"""The robustness audit compares each rule with backpropagation, by the worst case over a set of attacks.

docs/audit.md explains it and lists the literature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.audit.outcomes import Condition, Outcomes, decided_by, guards, hides_gradient, worst_case
from creditflow.audit.statistics import Difference, holm, lost_gain, paired_difference, two_way_interval
from creditflow.core.errors import UserError
from creditflow.records.record import Record

Verdict = Literal["more robust", "no difference", "less robust", "masked"]

ALPHA = 0.05
REFERENCE = "bp"

COLUMNS = [
    "dataset",
    "backbone",
    "rule",
    "epsilon",
    "clean",
    "worst",
    "worst_low",
    "worst_high",
    "decided_by",
    "claim",
    "claim_difference",
    "claim_low",
    "claim_high",
    "claim_p",
    "lost",
    "lost_low",
    "lost_high",
    "difference",
    "low",
    "high",
    "p_images",
    "p_seeds",
    "p",
    "verdict",
    "guards",
    "n_images",
    "n_seeds",
]


@dataclass(frozen=True)
class Comparison:
    """A rule's difference to the reference, and McNemar's p-value adjusted for all comparisons of the audit."""

    difference: Difference
    p: float

    @property
    def sign(self) -> int:
        """The sign of the difference, 1 or -1, if all three tests exclude zero; otherwise 0.

        They are the interval, the adjusted p-value over images, and the p-value over seeds. With one seed there is no
        p-value over seeds (it is NaN): the other two decide, and the verdict holds for these networks only.
        """
        difference = self.difference
        if self.p >= ALPHA or difference.p_seeds >= ALPHA:
            return 0
        return int(difference.low > 0) - int(difference.high < 0)


def verdict(
    claim: Comparison,
    worst: Comparison,
    *,
    claim_is_lost: bool = True,
    hidden: bool = False,
    reference_hidden: bool = False,
) -> Verdict:
    """Returns what the comparisons of a rule with the reference say.

    Args:
        claim: the comparison under the attack on which a claim of robustness rests.
        worst: the comparison in the worst case over all attacks.
        claim_is_lost: whether the worst case takes away a part of the claim's difference whose interval is above zero.
        hidden: whether the rule hides its gradient (`hides_gradient`). Its worst case is then known less well than the
            reference's, so that a better one proves nothing.
        reference_hidden: the same for the reference.
    """
    if worst.sign > 0 and not hidden:
        return "more robust"
    if claim.sign > 0 and claim_is_lost:
        return "masked"
    return "less robust" if worst.sign < 0 and not reference_hidden else "no difference"


def audit(records: Sequence[Record], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Audits the records of an experiment.

    All accuracies of a row are measured on the images that every attack of the audit met. A rule with fewer seeds than
    the reference is compared with the reference's models of these seeds.

    Args:
        records: all records of the experiment.
        settings: the experiment's `audit` keys: `attacks`, `epsilons` and `claim`.

    Returns:
        A row per dataset, backbone, rule and epsilon. Its columns are `COLUMNS` and, for each attack and attacker's
        gradient, "accuracy <attack> <gradient>".

    Raises:
        UserError: if the attacks have no image in common, or a rule has a seed that the reference does not have.
    """
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cells.setdefault((record.keys.dataset, record.keys.backbone), []).append(record)
    # A dataset that no attack of the audit attacks has clean records only; it has no rows.
    cells = {
        place: members
        for place, members in cells.items()
        if any(record.keys.attack in settings["attacks"] for record in members)
    }
    rows = [row for _, members in sorted(cells.items()) for row in _cell(members, settings)]
    _adjust(rows)
    frame = pd.DataFrame(rows)
    return frame[COLUMNS + [column for column in frame if column not in COLUMNS]]


@dataclass(frozen=True)
class _Rule:
    """What the audit compares: the outcomes of one rule at one epsilon, and the checks of its records."""

    name: str
    clean: float
    outcomes: Outcomes
    checks: Mapping[Condition, list[dict[str, Any]]]


def _cell(records: Sequence[Record], settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of one dataset and backbone; verdicts are left to `_adjust`."""
    used = [record for record in records if record.keys.attack in settings["attacks"]]
    images = _common_images(used)
    names = sorted({record.keys.rule for record in used}, key=lambda rule: (rule != REFERENCE, rule))
    if names[0] != REFERENCE:
        raise UserError(
            f"no attack of the audit was run on {REFERENCE}, with which rules are compared; add it to their `rules`"
        )
    seeds = {name: {record.keys.seed for record in used if record.keys.rule == name} for name in names}
    for name in names:
        if not seeds[name] <= seeds[REFERENCE]:
            difference = f"{name} has seeds {sorted(seeds[name])}, {REFERENCE} has {sorted(seeds[REFERENCE])}"
            raise UserError(f"{difference}: they cannot be paired; give {REFERENCE} these seeds too")
    place = {"dataset": records[0].keys.dataset, "backbone": records[0].keys.backbone}

    def measured(rule: str, chosen_seeds: set[int], epsilon: float) -> _Rule:
        chosen = [record for record in records if record.keys.rule == rule and record.keys.seed in chosen_seeds]
        return _rule(rule, chosen, settings, images, epsilon)

    rows = []
    for epsilon, name in product(settings["epsilons"], names):
        rule, reference = measured(name, seeds[name], epsilon), measured(REFERENCE, seeds[name], epsilon)
        rows.append(place | {"epsilon": epsilon} | _row(rule, reference.outcomes, settings["claim"]))
    return rows


def _rule(
    name: str, records: Sequence[Record], settings: Mapping[str, Any], images: NDArray[np.int64], epsilon: float
) -> _Rule:
    clean = {
        record.keys.seed: record.outcomes["correct"][0][images] for record in records if record.keys.attack == "clean"
    }
    by_condition: dict[Condition, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.keys.seed):
        if record.keys.attack in settings["attacks"]:
            by_condition.setdefault((record.keys.attack, record.keys.gradient), []).append(record)
    without = sorted({record.keys.seed for members in by_condition.values() for record in members} - set(clean))
    if without:
        raise UserError(f"{name}: no clean record of seed {without[0]}; give the audit the records of `evaluate`, too")
    # An image that is wrong without an attack counts as wrong under every attack, even if an attack happens to mend it.
    outcomes = {
        condition: np.stack([_at(record, images, epsilon) & clean[record.keys.seed] for record in members])
        for condition, members in by_condition.items()
    }
    if len({len(outcome) for outcome in outcomes.values()}) > 1:
        raise UserError(
            f"{name}: not all attacks of the audit were run with the same seeds; run them with the same, or audit fewer"
        )
    checks = {
        condition: [record.content["checks"] for record in members] for condition, members in by_condition.items()
    }
    return _Rule(name, float(np.mean(list(clean.values()))), outcomes, checks)


def _row(rule: _Rule, reference: Outcomes, claim: str) -> dict[str, Any]:
    outcomes = rule.outcomes
    worst = worst_case(outcomes)
    low, high = two_way_interval(worst)
    claimed_by = (claim, "feedback") if (claim, "feedback") in outcomes else (claim, "exact")
    claims = outcomes[claimed_by], reference[claimed_by if claimed_by in reference else (claim, "exact")]
    worsts = worst, worst_case(reference)
    claimed, difference = paired_difference(*claims), paired_difference(*worsts)
    lost, lost_low, lost_high = lost_gain(claims, worsts)
    row: dict[str, Any] = {"rule": rule.name, "clean": rule.clean}
    row |= {"worst": float(worst.mean()), "worst_low": low, "worst_high": high, "decided_by": decided_by(outcomes)}
    row |= {
        "claim": " ".join(claimed_by),
        "claim_difference": claimed.value,
        "claim_low": claimed.low,
        "claim_high": claimed.high,
    }
    row |= {"lost": lost, "lost_low": lost_low, "lost_high": lost_high}
    row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
    row |= {"p_images": difference.p_images, "p_seeds": difference.p_seeds, "_claim": claimed, "_worst": difference}
    fired_guards = guards(outcomes, rule.checks)
    row |= {"_hidden": hides_gradient(outcomes), "_reference_hidden": hides_gradient(reference)}
    row |= {"guards": "; ".join(fired_guards), "n_images": worst.shape[1], "n_seeds": worst.shape[0]}
    return row | {
        f"accuracy {attack} {gradient}": float(outcome.mean()) for (attack, gradient), outcome in outcomes.items()
    }


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Fills in adjusted p-values and verdicts; the reference is not compared with itself."""
    compared = [row for row in rows if row["rule"] != REFERENCE]
    claim_p_values = holm([row["_claim"].p_images for row in compared])
    worst_p_values = holm([row["_worst"].p_images for row in compared])
    for row, claim_p, p in zip(compared, claim_p_values, worst_p_values, strict=True):
        claim, worst = Comparison(row["_claim"], claim_p), Comparison(row["_worst"], p)
        flags = {
            "claim_is_lost": row["lost_low"] > 0,
            "hidden": row["_hidden"],
            "reference_hidden": row["_reference_hidden"],
        }
        row |= {"claim_p": claim_p, "p": p, "verdict": verdict(claim, worst, **flags)}
    for row in rows:
        row |= {"claim_p": row.get("claim_p", np.nan), "p": row.get("p", np.nan), "verdict": row.get("verdict", "")}
        for key in ("_claim", "_worst", "_hidden", "_reference_hidden"):
            del row[key]


def _common_images(records: Sequence[Record]) -> NDArray[np.int64]:
    images = set.intersection(*(set(record.outcomes["example"].tolist()) for record in records))
    if not images:
        raise UserError("the audit's attacks have no image in common; give them the same `images`")
    return np.array(sorted(images))


def _at(record: Record, images: NDArray[np.int64], epsilon: float) -> NDArray[np.bool_]:
    sizes = [metric.epsilon for metric in record.metrics if metric.metric == "robust_accuracy"]
    row: NDArray[np.bool_] = record.outcomes["correct"][sizes.index(epsilon)]
    return row[np.searchsorted(record.outcomes["example"], images)]
