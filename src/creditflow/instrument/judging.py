"""From records to the table of an audit: verdicts, soundness of each worst case, and accuracies with intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from creditflow.attacks.kinds import REQUIRED
from creditflow.instrument.budgets import CLAIM
from creditflow.records.record import Record
from creditflow.verdict.cells import Cell, Plan, cells
from creditflow.verdict.outcomes import worst_case
from creditflow.verdict.soundness import at_chance, problems
from creditflow.verdict.statistics import accuracy
from creditflow.verdict.verdicts import audit


@dataclass(frozen=True)
class Question:
    """What is asked of the records.

    Attributes:
        reference: the model that others are compared with.
        epsilons: sizes of the perturbation.
        margin: difference, in points, that is too small to matter.
        gradients: what the gradient of each model is worth, by its name.
        has_sources: whether images were transferred from other models.
    """

    reference: str
    epsilons: Sequence[float]
    margin: float
    gradients: Mapping[str, str]
    has_sources: bool

    @property
    def required(self) -> list[str]:
        """The kinds of attack that a worst case needs, as far as they can be run."""
        return [kind for kind in REQUIRED if kind != "transfer" or self.has_sources]

    @property
    def settings(self) -> dict[str, object]:
        """The settings of the verdict. Nothing can be climbed on a model without a useful gradient."""
        useless = [name for name, verdict in self.gradients.items() if verdict == "no useful gradient"]
        return {
            "attacks": [CLAIM, "apgd_scaled", "cascade"],
            "epsilons": list(self.epsilons),
            "claim": CLAIM,
            "margin": self.margin,
            "reference": self.reference,
            "impossible": {name: ["scale_free"] for name in useless},
        }


def table_of(records: Sequence[Record], question: Question) -> pd.DataFrame:
    """Returns a row for each model and epsilon, as `verdict.verdicts.audit` does.

    There, rows of the reference say nothing of soundness. Here `sound` and `reason` say of each model whether its own
    worst case can be believed, and the column `gradient` what its gradient is worth.
    """
    frame = audit(records, question.settings, required=question.required)
    (cell,) = cells(records, _plan(question))
    rows = frame.to_dict("records")
    for row in rows:
        if row["net_effect"] == "":
            doubts = _doubts(cell, row["rule"], row["epsilon"], question.margin)
            row |= {"sound": not doubts, "reason": "; ".join(doubts)}
    frame = pd.DataFrame(rows, columns=frame.columns)
    frame = frame.drop(columns=["dataset", "backbone"]).rename(columns={"rule": "model"})
    frame.insert(1, "gradient", frame.model.map(dict(question.gradients)))
    return frame


def _plan(question: Question) -> Plan:
    return Plan(**question.settings, required=question.required)  # type: ignore[arg-type]


def _doubts(cell: Cell, name: str, epsilon: float, margin: float) -> list[str]:
    """Returns why the worst case of a model that is compared with nothing cannot be believed."""
    evidence = cell.evidence(name, cell.seeds(name), epsilon)
    chance = at_chance(evidence, margin / 100)
    doubts = cell.plan.doubts_of(name) + problems(evidence, cell.plan.required_of(name))
    return [*([chance] if chance else []), *doubts]


def accuracies_of(records: Sequence[Record], question: Question) -> pd.DataFrame:
    """Returns accuracies with 95% intervals: columns model, epsilon, attack, gradient, value, low, high.

    The attack is "clean" without an attack, and "worst case" for all attacks together. Accuracies are fractions.
    """
    (cell,) = cells(records, _plan(question))
    rows = []
    for epsilon in question.epsilons:
        for name in cell.rules:
            evidence = cell.evidence(name, cell.seeds(name), epsilon)
            outcomes = {("clean", ""): evidence.clean, **evidence.outcomes}
            outcomes["worst case", ""] = worst_case(evidence.outcomes)
            for (attack, gradient), correct in outcomes.items():
                known = accuracy(correct)
                numbers = {"value": known.value, "low": known.low, "high": known.high}
                rows.append({"model": name, "epsilon": epsilon, "attack": attack, "gradient": gradient} | numbers)
    return pd.DataFrame(rows)
