"""All measurements of an audit: clean accuracies, the worth of gradients, and attacks, one network after the other."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.derivatives.report import GradientReport
from creditflow.derivatives.steadiness import Probe, check_answers, first_answers
from creditflow.instrument.budgets import CLAIM, Job, jobs
from creditflow.instrument.progress import Progress
from creditflow.instrument.run import Attacked, Plan, Source, attack_record, best_view, clean_record
from creditflow.instrument.subjects import Subject, check_differ, clean_logits, gradient_report, own_gradient
from creditflow.records.record import Record

#: The networks of each model, by its name.
Networks = Mapping[str, Sequence[Subject]]

#: Copies of networks, by the `id` of the subject.
Copies = dict[int, nn.Module | None]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        records: one for each network and attack, the clean ones included.
        reports: the check of each model's gradient, by its name.
        models: class and weights of each network, by the name of its model.
        has_sources: whether images were transferred from other networks.
    """

    records: list[Record]
    reports: dict[str, GradientReport]
    models: dict[str, Any]
    has_sources: bool


def measure(
    plan: Plan,
    audited: Networks,
    others: Networks,
    gradients: Sequence[str],
    n_classes: int,
    shown: bool,
    copies: Copies,
) -> Measured:
    """Measures all networks.

    Args:
        plan: what is the same for all attacks.
        audited: the networks that are attacked.
        others: further networks that images are transferred from.
        gradients: what an attacker may follow.
        n_classes: number of outputs of every network.
        shown: whether a progress bar is shown.
        copies: copies of the audited networks that were made before any call, by the `id` of the subject; None of what
            cannot be copied. They are used up.
    """
    with Progress(shown) as progress, randomness.global_seed("audit", plan.seed), _float32_by_default():
        return _measure(plan, audited, others, gradients, n_classes, progress, copies)


@contextmanager
def _float32_by_default() -> Iterator[None]:
    """Makes float32 the type of new tensors in a block, as libraries of attacks need it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _measure(
    plan: Plan,
    audited: Networks,
    others: Networks,
    gradients: Sequence[str],
    n_classes: int,
    progress: Progress,
    copies: Copies,
) -> Measured:
    subjects = [subject for members in audited.values() for subject in members]
    progress.say("accuracy without an attack")
    probes = {id(subject): _probe(plan, subject) for subject in subjects}
    answers = {
        id(subject): first_answers(subject.network, probes[id(subject)], copies.pop(id(subject)))
        for subject in subjects
    }
    logits = {id(subject): clean_logits(subject, plan.inputs, plan.device, plan.batch_size) for subject in subjects}
    for members in audited.values():
        check_differ(members, [logits[id(member)] for member in members])
    moved = {key: answer.at_moved.cpu() for key, answer in answers.items()}
    records = [clean_record(plan, each, logits[id(each)], moved[id(each)]) for each in subjects]
    reports = {}
    for name, members in (*audited.items(), *others.items()):
        progress.say(f"the gradient of {name}")
        reports[name] = gradient_report(members, plan.inputs, plan.device, plan.seed)
    views = _Views(plan, reports)
    targets = [
        Attacked(
            subject,
            logits[id(subject)],
            moved[id(subject)],
            reports[subject.name].verdict,
            views.own(subject),
            views.sources(subject, audited, others),
        )
        for subject in subjects
    ]
    has_sources = all(target.sources for target in targets)
    todo = [
        (target, job)
        for target in targets
        for job in jobs(plan.budget, target.verdict, gradients, n_classes, has_sources)
        if job.gradient != "own" or job.attack == CLAIM or target.has_own
    ]
    progress.expect([(job.attack, _cost(plan, job)) for _, job in todo])
    records += [attack_record(plan, target, job, progress) for target, job in todo]
    for subject in subjects:
        check_answers(subject.network, probes[id(subject)], answers[id(subject)], "the end of the audit")
    models = {
        name: [{"class": member.kind, "weights": member.weights} for member in members]
        for name, members in audited.items()
    }
    return Measured(records, reports, models, has_sources)


def _probe(plan: Plan, subject: Subject) -> Probe:
    images = plan.inputs.images[: plan.batch_size].to(plan.device)
    return Probe(str(subject), images, max(plan.unit_epsilons), plan.seed)


def _cost(plan: Plan, job: Job) -> float:
    return job.cost * len(plan.inputs.labels) * len(plan.epsilons)


class _Views:
    """Networks as attackers differentiate them, by what their gradients are worth."""

    def __init__(self, plan: Plan, reports: Mapping[str, GradientReport]) -> None:
        self._plan, self._reports = plan, reports

    def own(self, subject: Subject) -> Tensor | None:
        """Returns a network's own gradient at the first images; None if it is honest."""
        honest = self._reports[subject.name].verdict == "honest"
        return None if honest else own_gradient(subject, self._plan.inputs, self._plan.device)

    def sources(self, target: Subject, audited: Networks, further: Networks) -> list[Source]:
        """Returns the networks that images are transferred from to a target, as attackers differentiate them.

        These are some of the audited networks, as many as the budget has, and all further ones, which cannot take
        their place. A network without any gradient makes no adversarial images, so it is none of them.
        """
        others = [source for subject in _others_of(target, audited) for source in self._source(subject)]
        added = [source for members in further.values() for source in self._source(members[0])]
        return others[: self._plan.budget.sources] + added

    def _source(self, subject: Subject) -> list[Source]:
        own, verdict = self.own(subject), self._reports[subject.name].verdict
        if verdict == "no useful gradient" and (own is None or not bool((own != 0).any())):
            return []
        view = best_view(subject.network, verdict, "exact", own)
        return [Source(f"{subject.name} {subject.seed}", view, subject.weights)]


def _others_of(subject: Subject, audited: Networks) -> list[Subject]:
    """Returns the audited networks that images may be transferred from, as many for each network.

    These are of each other model the network of the same seed. Of a single model with several networks it is the next
    one.
    """
    if len(audited) > 1:
        return [members[subject.seed % len(members)] for name, members in audited.items() if name != subject.name]
    members = audited[subject.name]
    return [members[(subject.seed + 1) % len(members)]] if len(members) > 1 else []
