"""The robustness audit: each rule against backpropagation, by the worst case over a set of attacks. Rules: docs/audit.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.audit.statistics import Difference, holm, lost_gain, paired_difference, two_way_interval
from creditflow.core.errors import UserError
from creditflow.records.guards import fired
from creditflow.records.record import Record

Verdict = Literal["more robust", "no difference", "less robust", "masked"]

ALPHA = 0.05
REFERENCE = "bp"

#: Attack and attacker's gradient.
Condition = tuple[str, str]

#: outcomes (seeds, images) by condition.
Outcomes = Mapping[Condition, NDArray[np.bool_]]

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
        """1 or -1 where interval, adjusted p-value and the spread between seeds all exclude zero; else 0."""
        found = self.difference
        if (
            self.p >= ALPHA or found.p_seeds >= ALPHA
        ):  # NaN, with one seed, is no veto: the audit then speaks of these networks
            return 0
        return int(found.low > 0) - int(found.high < 0)


def verdict(
    claim: Comparison,
    worst: Comparison,
    *,
    claim_is_lost: bool = True,
    hidden: bool = False,
    reference_hidden: bool = False,
) -> Verdict:
    """Returns what the comparisons say.

    `claim` compares under the attack that a claim of robustness rests on; `claim_is_lost`: the interval of what the worst
    case takes away from it excludes zero. `hidden`, `reference_hidden`: attacks that use no gradient of the model beat
    those that do, so that its worst case is not known as well as the other's.
    """
    if worst.sign > 0 and not hidden:
        return "more robust"
    if claim.sign > 0 and claim_is_lost:
        return "masked"
    return "less robust" if worst.sign < 0 and not reference_hidden else "no difference"


def audit(records: Sequence[Record], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Returns one row per dataset, backbone, rule and epsilon; see `COLUMNS`, and "accuracy <attack> <gradient>".

    `settings` are an experiment's `audit` keys. All accuracies of a row are measured on the images that every attack
    met. A rule with fewer seeds than the reference is compared with the reference's models of these seeds. Raises UserError if there are
    no such images, or a rule has a seed that the reference lacks.
    """
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cells.setdefault((record.keys.dataset, record.keys.backbone), []).append(record)
    # Datasets that no attack of the audit looks at have clean records only.
    cells = {
        place: members
        for place, members in cells.items()
        if any(one.keys.attack in settings["attacks"] for one in members)
    }
    rows = [row for (_, _), members in sorted(cells.items()) for row in _cell(members, settings)]
    _adjust(rows)
    frame = pd.DataFrame(rows)
    return frame[COLUMNS + [column for column in frame if column not in COLUMNS]]


@dataclass(frozen=True)
class _Rule:
    """What the audit looks at for one rule at one epsilon."""

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
            both = f"{name} has seeds {sorted(seeds[name])}, {REFERENCE} has {sorted(seeds[REFERENCE])}"
            raise UserError(f"{both}: they cannot be paired; give {REFERENCE} these seeds too")
    place = {"dataset": records[0].keys.dataset, "backbone": records[0].keys.backbone}

    def measured(name: str, of: set[int], epsilon: float) -> _Rule:
        own = [record for record in records if record.keys.rule == name and record.keys.seed in of]
        return _rule(name, own, settings, images, epsilon)

    rows = []
    for epsilon, name in product(settings["epsilons"], names):
        rule, reference = (measured(one, seeds[name], epsilon) for one in (name, REFERENCE))
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
    # What is wrong before the attack is no survivor, whatever an attack that ends elsewhere makes of it.
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
    ours = rule.outcomes
    worst = worst_case(ours)
    low, high = two_way_interval(worst)
    claimed_by = (claim, "feedback") if (claim, "feedback") in ours else (claim, "exact")
    claims = ours[claimed_by], reference[claimed_by if claimed_by in reference else (claim, "exact")]
    worsts = worst, worst_case(reference)
    claimed, difference = paired_difference(*claims), paired_difference(*worsts)
    lost, lost_low, lost_high = lost_gain(claims, worsts)
    row: dict[str, Any] = {"rule": rule.name, "clean": rule.clean}
    row |= {"worst": float(worst.mean()), "worst_low": low, "worst_high": high, "decided_by": decided_by(ours)}
    row |= {
        "claim": " ".join(claimed_by),
        "claim_difference": claimed.value,
        "claim_low": claimed.low,
        "claim_high": claimed.high,
    }
    row |= {"lost": lost, "lost_low": lost_low, "lost_high": lost_high}
    row |= {"difference": difference.value, "low": difference.low, "high": difference.high}
    row |= {"p_images": difference.p_images, "p_seeds": difference.p_seeds, "_claim": claimed, "_worst": difference}
    fired_guards = guards(ours, rule.checks)
    row |= {"_hidden": hides_gradient(ours), "_reference_hidden": hides_gradient(reference)}
    row |= {"guards": "; ".join(fired_guards), "n_images": worst.shape[1], "n_seeds": worst.shape[0]}
    return row | {
        f"accuracy {attack} {gradient}": float(outcome.mean()) for (attack, gradient), outcome in ours.items()
    }


def worst_case(outcomes: Outcomes) -> NDArray[np.bool_]:
    """Returns (seeds, images): true where no attack of the set fooled the model on the image."""
    survived: NDArray[np.bool_] = np.logical_and.reduce(list(outcomes.values()))
    return survived


def decided_by(outcomes: Outcomes) -> str:
    """Returns the attack that left least: the worst case rests on it before all others."""
    attack, gradient = min(outcomes, key=lambda condition: (outcomes[condition].mean(), condition))
    return f"{attack} {gradient}" if gradient != "none" else attack


#: Pairs of attacks of which the second ought to leave no more than the first.
_RANKING = (("fgsm", "pgd"), ("pgd", "apgd_ce"))
_BLACK_BOX = ("square", "transfer")


def guards(outcomes: Outcomes, checks: Mapping[Condition, list[dict[str, Any]]]) -> list[str]:
    """Returns the guards that fire: signs in single records, and attacks that rank otherwise than they ought to."""
    found = []
    for condition, facts in checks.items():
        signs = sorted({sign for fact in facts for sign in fired(fact)})
        found += [f"{sign} ({' '.join(condition)})" for sign in signs]
    exact = _exact(outcomes)
    for weaker, stronger in _RANKING:
        if weaker in exact and stronger in exact and paired_difference(exact[stronger], exact[weaker]).low > 0:
            found.append(f"{stronger} weaker than {weaker}")
    return found + [f"{attack} stronger than white-box" for attack in _better_without_gradient(outcomes)]


def hides_gradient(outcomes: Outcomes) -> bool:
    """Says whether an attack that uses no gradient of the model leaves less than all that do: the plainest sign of masking."""
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


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Fills in adjusted p-values and verdicts; the reference is not compared with itself."""
    compared = [row for row in rows if row["rule"] != REFERENCE]
    claims, worsts = (
        holm([row["_claim"].p_images for row in compared]),
        holm([row["_worst"].p_images for row in compared]),
    )
    for row, claim_p, p in zip(compared, claims, worsts, strict=True):
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
