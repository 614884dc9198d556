"""The robustness audit compares each rule with backpropagation, by the worst case over a set of attacks.

docs/audit.md explains it and lists the literature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from creditflow.attacks.kinds import REQUIRED
from creditflow.records.record import Record
from creditflow.verdict.cells import MEASURES, Cell, Plan, cells, plan_of
from creditflow.verdict.outcomes import Condition, deciding, guards, spelled, worst_case
from creditflow.verdict.soundness import Evidence, at_chance, problems
from creditflow.verdict.statistics import FEWEST_SEEDS, Estimate, accuracy, bonferroni, difference, holm, lost_share
from creditflow.verdict.words import ALPHA, Claim, Trust, claim_verdict, net_effect

#: Columns of words, which are empty for a reference.
_WORDS = ("claim_verdict", "net_effect", "reason")

#: Columns of the frame. Accuracies, differences and shares are fractions; `margin` is in percentage points. Where
#: average precisions are compared, their means stand in place of accuracies, and `n_images` counts queries. Numbers of
#: a comparison are missing for the reference itself.
COLUMNS = [
    *("dataset", "backbone", "rule", "epsilon"),
    *("clean", "reference_clean", "worst", "worst_low", "worst_high", "decided_by"),
    *("claim", "claim_difference", "claim_low", "claim_high", "claim_p"),
    *("lost_share", "lost_low", "lost_high", "loss", "loss_low", "loss_high"),
    *("difference", "low", "high", "p", "family_low", "family_high", "margin"),
    *("claim_verdict", "net_effect", "sound", "reason", "guards"),
    *("scope", "n_images", "n_seeds"),
]


@dataclass(frozen=True)
class Comparison:
    """A rule and its reference at one epsilon, in numbers.

    Attributes:
        row: what the frame says of the rule itself.
        reference_clean: clean accuracy of the reference.
        advantage: the difference under the claim's attack.
        worst: the difference in the worst case.
        loss, lost: the advantage less the difference in the worst case; the same as a share of the advantage.
        trust: what can be believed.
        reasons: why not all can be.
    """

    row: dict[str, Any]
    reference_clean: float
    advantage: Estimate
    worst: Estimate
    loss: Estimate
    lost: Estimate
    trust: Trust
    reasons: Sequence[str]


def audit(
    records: Sequence[Record], settings: Mapping[str, Any], outcome: str = "correct", required: Sequence[str] = REQUIRED
) -> pd.DataFrame:
    """Audits the records of an experiment.

    All accuracies of a row are measured on the images that every attack of the audit met. A rule with fewer seeds than
    the reference is compared with the reference's models of these seeds.

    Args:
        records: all records of the experiment.
        settings: the experiment's `audit` keys.
        outcome: what is compared: "correct" for images, "ap" for queries.
        required: kinds of attack that a worst case needs.

    Returns:
        A row per dataset, backbone, rule and epsilon. Its columns are `COLUMNS` and, for each attack and attacker's
        gradient, "accuracy <attack> <gradient>", or "map <attack> <gradient>" of average precisions.

    Raises:
        UserError: if the attacks have no image in common, or a rule has a seed that its reference does not have.
    """
    plan = plan_of(settings, outcome, required)
    measured = [
        _measured(cell, rule, epsilon)
        for cell in cells(records, plan)
        for epsilon, rule in product(plan.epsilons, cell.rules)
    ]
    frame = pd.DataFrame(_judged(measured, plan.margin))
    return frame[COLUMNS + [column for column in frame if column not in COLUMNS]]


def _measured(cell: Cell, rule: str, epsilon: float) -> Comparison | dict[str, Any]:
    """Returns a rule's comparison with its reference; for a reference its row alone."""
    seeds, name = cell.seeds(rule), cell.plan.reference_of(rule)
    evidence = cell.evidence(rule, seeds, epsilon)
    row = {"dataset": cell.dataset, "backbone": cell.backbone, "epsilon": epsilon} | _row(cell, evidence)
    return row if name is None else _compared(cell, row, evidence, cell.evidence(name, seeds, epsilon))


def _row(cell: Cell, evidence: Evidence) -> dict[str, Any]:
    worst = worst_case(evidence.outcomes)
    estimate = accuracy(worst)
    row: dict[str, Any] = {"rule": evidence.name, "clean": cell.clean(evidence)}
    row |= {"worst": estimate.value, "worst_low": estimate.low, "worst_high": estimate.high}
    row |= {"decided_by": spelled(deciding(evidence.outcomes)), "claim": " ".join(_claimed_by(cell.plan, evidence))}
    row |= {"guards": "; ".join(guards(evidence.outcomes, evidence.checks)), "margin": cell.plan.margin}
    row |= {"n_images": worst.shape[1], "n_seeds": worst.shape[0]}
    row["scope"] = "any seed" if worst.shape[0] >= FEWEST_SEEDS else "these networks only"
    measure = MEASURES[cell.plan.outcome]
    return row | {
        f"{measure} {attack} {gradient}": float(kept.mean()) for (attack, gradient), kept in evidence.outcomes.items()
    }


def _claimed_by(plan: Plan, evidence: Evidence) -> Condition:
    """Returns the condition on which a claim rests.

    It is through the feedback weights or a given model's own gradient, where there is such a gradient.
    """
    candidates = [(plan.claim, gradient) for gradient in ("feedback", "own")]
    return next((condition for condition in candidates if condition in evidence.outcomes), (plan.claim, "exact"))


def _compared(cell: Cell, row: dict[str, Any], rule: Evidence, reference: Evidence) -> Comparison:
    claims = tuple(evidence.outcomes[_claimed_by(cell.plan, evidence)] for evidence in (rule, reference))
    worsts = worst_case(rule.outcomes), worst_case(reference.outcomes)
    pair = (claims[0], claims[1])
    advantage, worst = np.subtract(*pair, dtype=np.float64), np.subtract(*worsts, dtype=np.float64)
    doubts = [
        cell.plan.doubts_of(evidence.name) + problems(evidence, cell.plan.required_of(evidence.name))
        for evidence in (rule, reference)
    ]
    chances = [at_chance(evidence, cell.plan.margin / 100) for evidence in (rule, reference)]
    reasons = [f"{each.name}: {chance}" for each, chance in zip((rule, reference), chances, strict=True) if chance]
    reasons += [f"{rule.name}: {doubt}" for doubt in doubts[0]] + [f"{reference.name}: {doubt}" for doubt in doubts[1]]
    return Comparison(
        row,
        cell.clean(reference),
        difference(*pair),
        difference(*worsts),
        difference(advantage, worst),
        lost_share(pair, worsts),
        Trust(
            rule=not doubts[0],
            reference=not doubts[1],
            rule_learnt=chances[0] is None,
            reference_learnt=chances[1] is None,
        ),
        reasons,
    )


def _judged(measured: Sequence[Comparison | dict[str, Any]], margin: float) -> list[dict[str, Any]]:
    """Returns the rows with p-values adjusted for all comparisons, and verdicts; a reference has none."""
    compared = [comparison for comparison in measured if isinstance(comparison, Comparison)]
    claim_p = holm([comparison.advantage.p for comparison in compared])
    worst_p = bonferroni([comparison.worst.p for comparison in compared])
    judged = iter(
        _verdict(comparison, len(compared), p_values, margin / 100)
        for comparison, p_values in zip(compared, zip(claim_p, worst_p, strict=True), strict=True)
    )
    return [next(judged) if isinstance(member, Comparison) else _uncompared(member) for member in measured]


def _verdict(compared: Comparison, n_tests: int, p_values: tuple[float, float], margin: float) -> dict[str, Any]:
    claim = Claim(compared.advantage, p_values[0], compared.loss, compared.lost)
    claim_word, claim_reason = claim_verdict(claim, margin, compared.trust)
    net_word, net_reason = net_effect(compared.worst, p_values[1], n_tests, margin, compared.trust)
    numbers = _numbers("claim", "claim_difference", compared.advantage) | {"claim_p": p_values[0]}
    if claim.is_shown:
        numbers |= _numbers("lost", "lost_share", compared.lost) | _numbers("loss", "loss", compared.loss)
    family = compared.worst.bounds(1 - ALPHA / n_tests)
    numbers |= {"difference": compared.worst.value, "low": compared.worst.low, "high": compared.worst.high}
    numbers |= {"p": p_values[1], "family_low": max(family[0], -1.0), "family_high": min(family[1], 1.0)}
    words = {"claim_verdict": claim_word, "net_effect": net_word, "sound": not compared.reasons}
    reasons = [*compared.reasons, *(reason for reason in (claim_reason, net_reason) if reason)]
    words |= {"reason": "; ".join(reasons) if "unresolved" in (claim_word, net_word) else ""}
    return _uncompared(compared.row) | numbers | words | {"reference_clean": compared.reference_clean}


def _numbers(prefix: str, name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{prefix}_low": estimate.low, f"{prefix}_high": estimate.high}


def _uncompared(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row whose numbers of a comparison are missing, and whose words are empty."""
    blank = {column: "" if column in _WORDS else nan for column in COLUMNS}
    return blank | {"sound": True} | row
