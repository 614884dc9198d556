"""What an audit compares, read from records: the outcomes of each rule of one dataset and network, and their pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditflow.attacks.kinds import REQUIRED
from creditflow.core.errors import UserError
from creditflow.core.gradients import parse_gradient
from creditflow.core.matched import is_control, matched_name, matched_to
from creditflow.records.record import Record
from creditflow.verdict.outcomes import Condition
from creditflow.verdict.soundness import Evidence

REFERENCE = "bp"

#: The outcomes that are compared of each task: whether an image is classified rightly, a query's average precision.
OUTCOMES = {"classification": "correct", "retrieval": "ap"}

#: What the mean of an outcome is called in the audit's columns.
MEASURES = {"correct": "accuracy", "ap": "map"}

#: The metric that is the mean of an outcome at one epsilon.
_MEANS = {"correct": "robust_accuracy", "ap": "map"}


@dataclass(frozen=True)
class Plan:
    """What an audit looks at.

    Attributes:
        attacks: the attacks of the worst case.
        epsilons: sizes of the perturbation.
        claim: the attack on which a claim rests.
        margin: difference, in percentage points, that is too small to matter.
        datasets: those that are compared; None for all.
        reference: the network that all others are compared with, "bp" in experiments; "matched" stands for
            backpropagation stopped at each rule's clean accuracy.
        outcome: what a record says of each image: "correct", or "ap" of a query.
        required: kinds of attack that a worst case needs.
        impossible: by the name of a network without a useful gradient, the kinds of attack that cannot be run on it.
    """

    attacks: Sequence[str]
    epsilons: Sequence[float]
    claim: str
    margin: float = 5.0
    datasets: Sequence[str] | None = None
    reference: str = REFERENCE
    outcome: str = "correct"
    required: Sequence[str] = REQUIRED
    impossible: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def first(self) -> str:
        """The network that stands first: the reference, or backpropagation's where each rule has one of its own."""
        return REFERENCE if self.reference == "matched" else self.reference

    def required_of(self, rule: str) -> list[str]:
        """Returns the kinds of attack that the worst case of a network needs."""
        return [kind for kind in self.required if kind not in self.impossible.get(rule, ())]

    def doubts_of(self, rule: str) -> list[str]:
        """Returns why the worst case of a network says too little, whatever its attacks showed; in words."""
        bound = "there is no useful gradient, so that stronger attacks may exist: the worst case is only an upper bound"
        return [bound] if self.impossible.get(rule) else []

    def reference_of(self, rule: str) -> str | None:
        """Returns the network that a rule is compared with; None for references themselves."""
        if rule == self.first or (self.first == REFERENCE and matched_to(rule) is not None):
            return None
        return matched_name(rule) if self.reference == "matched" and not is_control(rule) else self.first

    def uses(self, record: Record) -> bool:
        """Returns whether a record's attack takes part in the worst case.

        Fresh feedback weights do not: they are a control, which may be run on fewer images and epsilons.
        """
        keys = record.keys
        return keys.attack in self.attacks and parse_gradient(keys.gradient).kind != "through"


class Cell:
    """The records of one dataset and network."""

    def __init__(self, records: Sequence[Record], plan: Plan) -> None:
        """Raises UserError if the attacks have no image in common, or seeds cannot be paired."""
        self.plan = plan
        keys = records[0].keys
        self.dataset, self.backbone = keys.dataset, keys.backbone
        self._clean = [record for record in records if record.keys.attack == "clean"]
        self._attacked = [record for record in records if plan.uses(record)]
        self._images = _common_images(self._attacked)
        self.rules = sorted(
            {record.keys.rule for record in self._attacked}, key=lambda name: (name != plan.first, name)
        )
        for rule in self.rules:
            self._check_reference(rule, plan.reference_of(rule))

    def seeds(self, rule: str) -> list[int]:
        """Returns the seeds of a rule's attacked models."""
        return sorted({record.keys.seed for record in self._attacked if record.keys.rule == rule})

    def clean(self, evidence: Evidence) -> float:
        """Returns the clean accuracy, or mean average precision, on the images that all attacks met."""
        return float(evidence.clean[:, self._images].mean())

    def evidence(self, rule: str, seeds: Sequence[int], epsilon: float) -> Evidence:
        """Returns what attacks at one epsilon showed of a rule's models of some seeds.

        An image that is wrong without an attack counts as wrong under every attack, even if an attack happens to mend
        it. Raises UserError if a clean record is missing, or attacks were run with different seeds.
        """
        clean = self._clean_of(rule, seeds)
        by_condition: dict[Condition, list[Record]] = {}
        for record in sorted(self._attacked, key=lambda record: record.keys.seed):
            if record.keys.rule == rule and record.keys.seed in seeds:
                by_condition.setdefault((record.keys.attack, record.keys.gradient), []).append(record)
        if any(len(members) != len(seeds) for members in by_condition.values()):
            problem = "not all attacks of the audit were run with the same seeds"
            raise UserError(f"{rule}: {problem}; run them with the same, or audit fewer")
        without_attack = np.stack([self._outcomes(record)[0] for record in clean])
        before = without_attack[:, self._images]
        return Evidence(
            rule,
            {
                condition: np.minimum(np.stack([self._at(record, epsilon) for record in members]), before)
                for condition, members in by_condition.items()
            },
            {condition: self._checks(parts, epsilon) for condition, parts in by_condition.items()}
            | _checks_of_training(clean),
            {condition: _parameters(parts[0]) for condition, parts in by_condition.items()},
            without_attack,
            clean[0].content.get("checks", {}).get("chance"),
        )

    def _clean_of(self, rule: str, seeds: Sequence[int]) -> list[Record]:
        by_seed = {record.keys.seed: record for record in self._clean if record.keys.rule == rule}
        without = [seed for seed in seeds if seed not in by_seed]
        if without:
            advice = "give the audit the records of `evaluate`, too"
            raise UserError(f"{rule}: no clean record of seed {without[0]}; {advice}")
        return [by_seed[seed] for seed in seeds]

    def _checks(self, records: Sequence[Record], epsilon: float) -> list[dict[str, Any]]:
        """Returns the checks of each seed's record of one condition.

        A share that is known at each epsilon is that at `epsilon`, and its mean over seeds: accuracies, too, are means
        over seeds, and a few images of a single seed say little.
        """
        checks = [record.content["checks"] for record in records]
        known = [facts.get("at_epsilon", {}) for facts in checks]
        names = set.intersection(*(set(shares) for shares in known))
        rows = [self._row(record, epsilon) for record in records]
        means = {
            name: float(np.mean([shares[name][row] for shares, row in zip(known, rows, strict=True)])) for name in names
        }
        return [facts | means for facts in checks]

    def _row(self, record: Record, epsilon: float) -> int:
        """Returns which row of a record's outcomes belongs to an epsilon."""
        sizes = [metric.epsilon for metric in record.metrics if metric.metric == _MEANS[self.plan.outcome]]
        if epsilon not in sizes:
            problem = f"{record.path} has no epsilon {epsilon:g}, which the audit compares; it has {sizes}"
            raise UserError(f"{problem}: run the attack at this one, too, or audit others")
        return sizes.index(epsilon)

    def _at(self, record: Record, epsilon: float) -> NDArray[Any]:
        """Returns the outcomes (images,) of a record at one epsilon, for the images that all attacks met."""
        row = self._outcomes(record)[self._row(record, epsilon)]
        places = np.searchsorted(record.outcomes["example"], self._images)
        chosen: NDArray[Any] = row[places]
        return chosen

    def _outcomes(self, record: Record) -> NDArray[Any]:
        if self.plan.outcome not in record.outcomes:
            raise UserError(f"{record.path} has no outcomes called {self.plan.outcome}, which the audit compares")
        return record.outcomes[self.plan.outcome]

    def _check_reference(self, rule: str, reference: str | None) -> None:
        if reference is None:
            return
        if reference not in self.rules:
            problem = f"no attack of the audit was run on {reference}, with which {rule} is compared"
            raise UserError(f"{problem}; add it to their `rules`")
        if not set(self.seeds(rule)) <= set(self.seeds(reference)):
            seeds = f"{rule} has seeds {self.seeds(rule)}, {reference} has {self.seeds(reference)}"
            raise UserError(f"{seeds}: they cannot be paired; give {reference} these seeds too")


def _checks_of_training(clean: Sequence[Record]) -> dict[Condition, list[dict[str, Any]]]:
    """Returns what the clean records say of the training, for the guards' table; nothing where they say nothing.

    It belongs to no attack, so it has no influence on whether an attack can be believed.
    """
    shares = [record.content.get("checks", {}).get("below_decay") for record in clean]
    return (
        {("training", "none"): [{"below_decay": share} for share in shares if share is not None]} if any(shares) else {}
    )


def cells(records: Sequence[Record], plan: Plan) -> Iterator[Cell]:
    """Yields the cells of an audit, in the order of datasets and networks.

    A dataset that no attack of the audit attacks has clean records only, and is no cell.
    """
    members: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if plan.datasets is None or record.keys.dataset in plan.datasets:
            members.setdefault((record.keys.dataset, record.keys.backbone), []).append(record)
    for _, chosen in sorted(members.items()):
        if any(plan.uses(record) for record in chosen):
            yield Cell(chosen, plan)


def plan_of(settings: Mapping[str, Any], outcome: str = "correct", required: Sequence[str] = REQUIRED) -> Plan:
    """Returns the plan of an experiment's `audit` keys; `outcome` and `required` are those of `Plan`."""
    return Plan(**settings, outcome=outcome, required=required)


def _parameters(record: Record) -> dict[str, Any]:
    parameters: dict[str, Any] = record.content.get("settings", {}).get("parameters", {})
    return parameters


def _common_images(records: Sequence[Record]) -> NDArray[np.int64]:
    images = set.intersection(*(set(record.outcomes["example"].tolist()) for record in records))
    if not images:
        raise UserError("the audit's attacks have no image in common; give them the same `images`")
    return np.array(sorted(images))
