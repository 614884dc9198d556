"""Runs the attacks of an audit and writes their records. A record that is there already is taken, if it is the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.attacks.batch import AttackResult
from creditflow.attacks.foreign import FlatView, view_of
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.attacks.metrics import attack_metrics, attack_outcomes
from creditflow.compute.provenance import Stopwatch, provenance_of, source_hash
from creditflow.core.errors import UserError
from creditflow.core.files import fingerprint, sha256, warn
from creditflow.core.gradients import folder_of
from creditflow.core.settings import plain
from creditflow.data.labels import is_correct
from creditflow.instrument.batching import with_less_memory
from creditflow.instrument.budgets import Budget, Job
from creditflow.instrument.inputs import Bounds, Inputs
from creditflow.instrument.progress import Progress, WatchedImages
from creditflow.instrument.subjects import Subject
from creditflow.records.record import Keys, Metric, Record, read_record, write_record

#: The most bytes of adversarial images that a record keeps.
_KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Source:
    """A network that images are transferred from, as an attacker differentiates it."""

    name: str
    network: nn.Module
    weights: str


@dataclass(frozen=True)
class Plan:
    """What is the same for all attacks of an audit.

    Attributes:
        folder: where records go.
        inputs: images and labels.
        epsilons: sizes of the perturbation, in the units of `bounds`.
        bounds: lowest and highest value of a pixel.
        preprocessing: what the records say of it.
        budget: the tier.
        device: where networks are.
        batch_size: how many images at once.
        fixed_batch: whether the user chose this number, so that a record with another one is not the same.
        seed: seed of the attacks.
    """

    folder: Path
    inputs: Inputs
    epsilons: Sequence[float]
    bounds: Bounds
    preprocessing: Any
    budget: Budget
    device: torch.device
    batch_size: int
    fixed_batch: bool
    seed: int

    @property
    def unit_epsilons(self) -> list[float]:
        """The sizes for pixels in [0, 1]."""
        return [epsilon / (self.bounds[1] - self.bounds[0]) for epsilon in self.epsilons]

    @property
    def n_kept(self) -> int:
        """How many adversarial images a record keeps: all, or as many as are not too large."""
        image_bytes = self.inputs.images[0].numel() * 4 * len(self.epsilons)
        return min(len(self.inputs.labels), _KEPT_BYTES // image_bytes)


def keys_of(subject: Subject, attack: str, gradient: str) -> Keys:
    """Returns the keys of a record. All models share one backbone: they are compared with each other."""
    return Keys("audit", "classification", "images", "models", subject.name, subject.seed, attack, gradient)


def path_of(folder: Path, keys: Keys) -> Path:
    """Returns where a record lies."""
    place = folder / "records" / keys.rule
    return place / keys.attack / folder_of(keys.gradient) / f"seed{keys.seed}.json"


def clean_record(plan: Plan, subject: Subject, logits: Tensor, at_moved: Tensor) -> Record:
    """Writes and returns the record of a network's clean accuracy.

    Args:
        plan: what is the same for all records.
        subject: the network.
        logits: its outputs (N, K) at all images.
        at_moved: its outputs (n, K) at images that were moved a little.
    """
    correct = is_correct(logits, plan.inputs.labels)
    labels = plan.inputs.labels
    settings = _settings(plan, subject, logits, at_moved) | {"stage": "evaluate"}
    keys = keys_of(subject, "clean", "none")
    write_record(
        path_of(plan.folder, keys),
        keys,
        [Metric("accuracy", None, float(correct.double().mean()), len(correct))],
        {"correct": correct[None].numpy(), "example": torch.arange(len(correct)).numpy()},
        checks={"chance": float(labels.bincount().max()) / len(labels)},
        settings=settings,
        provenance=provenance_of(settings, plan.device),
        run=Stopwatch(plan.device).run_facts(),
    )
    return read_record(path_of(plan.folder, keys))


@dataclass(frozen=True)
class Attacked:
    """A network that is attacked.

    Attributes:
        subject: the network.
        logits: its outputs (N, K) at the images without an attack.
        at_moved: its outputs (n, K) at images that were moved a little.
        verdict: what its gradient is worth.
        own: its own gradient at the first images; None if it is honest.
        sources: where images are transferred from.
    """

    subject: Subject
    logits: Tensor
    at_moved: Tensor
    verdict: str
    own: Tensor | None
    sources: Sequence[Source]

    @property
    def has_own(self) -> bool:
        """Whether the own gradient is anything but zero."""
        return self.own is None or bool((self.own != 0).any())


def best_view(network: nn.Module, verdict: str, gradient: str, own: Tensor | None) -> nn.Module:
    """Returns a network as an attacker differentiates it, by what its gradient is worth.

    `own` is its own gradient at some images, or None of an honest one.
    """
    if own is not None and (gradient == "own" or verdict == "no useful gradient"):
        return network if bool((own != 0).any()) else FlatView(network)
    # Step functions within count as constants, as `check_gradient` took them when it compared with numbers.
    return view_of(network, gradient, honest=verdict == "honest", missing="zero")


def attack_record(plan: Plan, target: Attacked, job: Job, progress: Progress) -> Record:
    """Returns the record of an attack on a network: the one that is there, if it is the same, else a new one."""
    keys = keys_of(target.subject, job.attack, job.gradient)
    settings = _attack_settings(plan, target, job)
    record = _existing(plan, keys, settings)
    if record is not None:
        progress.skip()
        return record
    watch, path = Stopwatch(plan.device), path_of(plan.folder, keys)
    result, batch_size = _attacked(plan, target, job, progress)
    settings["batch_size"] = batch_size
    write_record(
        path,
        keys,
        attack_metrics(result, plan.epsilons),
        attack_outcomes(result, torch.arange(len(plan.inputs.labels))),
        checks=result.checks,
        settings=settings,
        provenance=provenance_of(settings, plan.device),
        run=watch.run_facts(),
    )
    return read_record(path)


def _attacked(plan: Plan, target: Attacked, job: Job, progress: Progress) -> tuple[AttackResult, int]:
    subject, inputs = target.subject, plan.inputs
    view = best_view(subject.network, target.verdict, job.gradient, target.own)
    data = WatchedImages(inputs.images, inputs.labels, (), (), (), device=plan.device, after=progress.after_batch)
    sources = {source.name: source.network for source in target.sources}

    def work(batch_size: int) -> AttackResult:
        try:
            return run_attack(
                get_attack(job.attack),
                job.settings,
                view,
                data,
                torch.arange(len(inputs.labels)),
                plan.unit_epsilons,
                batch_size=batch_size,
                seed=plan.seed + subject.seed,
                helpers=Helpers(surrogates=sources),
                keep=plan.n_kept if job.keeps else 0,
                check_convergence=job.checks_convergence,
                convergence_images=plan.budget.convergence_images,
                confirm_gradients=_has_exact(target, job),
            )
        except UserError as error:
            raise UserError(f"{subject}, attack {job.attack} {job.gradient}: {error}") from error

    text = f"{subject.name}{f' {subject.seed}' if subject.seed else ''}: {job.attack} {job.gradient}"
    with progress.job(text, [view, *sources.values()]):
        return with_less_memory(work, plan.batch_size)


def _has_exact(target: Attacked, job: Job) -> bool:
    """Returns whether an attack follows a gradient that is said to be exact, so that it has to prove true."""
    return job.gradient == "exact" and target.verdict != "no useful gradient"


def _settings(plan: Plan, subject: Subject, logits: Tensor, at_moved: Tensor) -> dict[str, Any]:
    """Returns what a record says of network and images: everything that its outcomes follow from, beside the attack."""
    identity = plan.inputs.identity()
    return {
        "model": {"weights": subject.weights, "class": subject.kind}
        | {"outputs": _behaviour(logits), "outputs_beside": _behaviour(at_moved)},
        "data": fingerprint(identity),
        "labels": identity["labels"],
        "images": len(plan.inputs.labels),
        "bounds": list(plan.bounds),
        "preprocessing": plan.preprocessing,
        "seed": plan.seed,
    }


def _behaviour(logits: Tensor) -> str:
    """Returns what a network answers to the images, so that other code with the same weights is noticed.

    It is a hash of its predictions and the size of its logits; it is not one of the logits, as rounding differs between
    machines. A network may be the same at the images and another one beside them, so moved images count, too.
    """
    predictions = sha256(logits.argmax(1).numpy().tobytes())[:16]
    return f"{predictions}, logits of {float(logits.double().abs().mean()):.3g} on average"


def _signature(gradient: Tensor | None) -> str | None:
    """Returns what tells one backward pass from another, and does not depend on the last bits of numbers."""
    if gradient is None:
        return None
    largest = int(gradient.abs().flatten().argmax())
    return f"norm {float(gradient.double().norm()):.3g}, largest at {largest}"


def _attack_settings(plan: Plan, target: Attacked, job: Job) -> dict[str, Any]:
    transfers = plain(job.settings).get("transfer") is not None
    settings = _settings(plan, target.subject, target.logits, target.at_moved) | {
        "stage": "attack",
        "attack": job.attack,
        "gradient": job.gradient,
        "backward_pass": target.verdict,
        "own_gradient": _signature(target.own) if job.gradient == "own" else None,
        "norm": "linf",
        "parameters": plain(job.settings),
        "epsilons": list(plan.epsilons),
        "batch_size": plan.batch_size,
        "surrogates": {source.name: source.weights for source in target.sources} if transfers else {},
        "keep": plan.n_kept if job.keeps else 0,
        "check_convergence": job.checks_convergence,
        "convergence_images": plan.budget.convergence_images,
        "confirm_gradients": _has_exact(target, job),
    }
    plain_settings: dict[str, Any] = json.loads(json.dumps(settings))  # as a record that is read has them
    return plain_settings


def _existing(plan: Plan, keys: Keys, settings: Mapping[str, Any]) -> Record | None:
    """Returns the record that is there, if it is whole and the same; otherwise says in a line that it is made again."""
    path = path_of(plan.folder, keys)
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except UserError:
        warn(f"{path} is damaged or not whole; it is measured again")
        return None
    free = set() if plan.fixed_batch else {"batch_size"}
    stored = record.content.get("settings", {})
    names = sorted(name for name in {*stored, *settings} - free if stored.get(name) != settings.get(name))
    if asdict(record.keys) != asdict(keys):
        names = ["keys", *names]
    if names:
        warn(f"{path} is of another audit (not the same: {', '.join(names)}); it is measured again")
        return None
    if record.content.get("provenance", {}).get("source_hash") != source_hash():
        warn(f"{path} was made by another version of creditflow; it is measured again")
        return None
    return record
