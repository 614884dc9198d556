"""The words of a verdict: what becomes of a claim, and the net effect. docs/audit.md explains them."""

from dataclasses import dataclass
from typing import Literal

from creditflow.verdict.statistics import Estimate

ALPHA = 0.05

ClaimVerdict = Literal["no claim", "masked", "partly masked", "holds", "unresolved"]


@dataclass(frozen=True)
class Claim:
    """A rule's advantage under the attack on which a claim rests, and what the worst case leaves of it.

    Attributes:
        advantage: the difference to the reference under that attack.
        p: its p-value, adjusted for all claims of the audit.
        loss: the advantage less the difference in the worst case.
        lost: the loss as a share of the advantage.
    """

    advantage: Estimate
    p: float
    loss: Estimate
    lost: Estimate

    @property
    def is_shown(self) -> bool:
        """Says whether there is an advantage: it is above zero, and not by chance."""
        return self.advantage.value > 0 and self.p < ALPHA


@dataclass(frozen=True)
class Trust:
    """What can be believed: the worst cases of the rule and of the reference, and that each of them has learnt."""

    rule: bool = True
    reference: bool = True
    rule_learnt: bool = True
    reference_learnt: bool = True


def claim_verdict(claim: Claim, margin: float, trust: Trust) -> tuple[ClaimVerdict, str]:
    """Returns what becomes of a claim, and why if it is unresolved for want of numbers.

    There is no claim where the measured advantage is not above zero, or its interval ends below the margin. It need not
    be significant: more seeds make a small advantage significant, but no larger. The other words need an advantage that
    is significantly above zero, and whose interval begins above the margin. What lies between is unresolved. So is a
    claim whose lost share may be below one half or above it. More seeds would choose the word in these cases.

    "Masked" needs no sound worst case of the rule: if it is weaker than it seems, the rule has lost even more. A rule
    whose clean accuracy is not shown to lie above chance gets neither "partly masked" nor "holds": a constant answer
    resists all attacks.

    Args:
        claim: the claim.
        margin: difference, as a share, that is too small to matter.
        trust: what can be believed.
    """
    if not trust.reference_learnt:
        return "unresolved", ""
    if claim.advantage.value <= 0 or claim.advantage.high <= margin:
        return "no claim", ""
    points = f"{100 * max(claim.advantage.low, -1):+.1f} to {100 * min(claim.advantage.high, 1):+.1f} points"
    if not claim.is_shown:
        return "unresolved", f"claim: the advantage, {points}, is not shown to be above zero (adjusted p {claim.p:.2g})"
    if claim.advantage.low <= margin:
        return "unresolved", f"claim: the advantage, {points}, is not on one side of {100 * margin:g} points"
    if claim.lost.low > 0.5:
        return ("masked" if trust.reference else "unresolved"), ""
    if claim.lost.high >= 0.5:
        share = f"{_percent(claim.lost.low)} to {_percent(claim.lost.high)}%"
        return "unresolved", f"claim: the lost share, {share}, is not on one side of half"
    if not (trust.rule and trust.rule_learnt and trust.reference):
        return "unresolved", ""
    return ("partly masked" if claim.loss.low > margin else "holds"), ""


def within_margin(margin: float) -> str:
    """Returns the word for a difference that is shown to be smaller than the margin, a share."""
    return f"no difference beyond {100 * margin:g} points"


def net_effect(difference: Estimate, p: float, n_tests: int, margin: float, trust: Trust) -> tuple[str, str]:
    """Returns the net effect in the worst case, and why if it is unresolved for want of numbers.

    Both words about a difference hold for all comparisons of an audit together: intervals have the level 1 - 5% /
    `n_tests`, and p-values are multiplied by `n_tests` (Bonferroni).

    Args:
        difference: of the worst cases of rule and reference.
        p: its p-value, adjusted for all comparisons.
        n_tests: the number of comparisons.
        margin: difference, as a share, that is too small to matter.
        trust: what can be believed.
    """
    if not (trust.rule and trust.reference and trust.reference_learnt):
        return "unresolved", ""
    low, high = difference.bounds(1 - ALPHA / n_tests)
    if -margin < low and high < margin:
        return within_margin(margin), ""
    if p < ALPHA and difference.low > 0:
        return ("more robust" if trust.rule_learnt else "unresolved"), ""
    if p < ALPHA and difference.high < 0:
        return "less robust", ""
    count = "this comparison" if n_tests == 1 else f"all {n_tests} comparisons"
    interval = f"{100 * max(low, -1):+.1f} to {100 * min(high, 1):+.1f} points"
    beyond = f"{100 * margin:g} points or more"
    return "unresolved", f"net effect: the interval for {count}, {interval}, holds both 0 and {beyond}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
