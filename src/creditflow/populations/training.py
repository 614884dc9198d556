"""Training of a population: P networks of one rule, each with a seed and a learning rate of its own."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map
from tqdm import tqdm

from creditflow.compute import randomness
from creditflow.compute.checkpoints import Resume, load_checkpoint, save_checkpoint
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.adversaries import AdversarySettings, adversarial_images
from creditflow.populations.images import FlatImages, Streams, held_out, is_right
from creditflow.populations.losses import LOSSES
from creditflow.populations.measuring import accuracies, layer_angles, robust_accuracies, update_angles
from creditflow.populations.memory import check_memory
from creditflow.populations.network import Parameters, network_of
from creditflow.populations.optimizers import Optimizer, OptimizerSettings
from creditflow.populations.population import Member, Population, norms
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.start import draw_start


def train_population(
    rule: UpdateRule,
    members: Sequence[Member],
    data: FlatImages,
    test: FlatImages,
    settings: PopulationSettings,
    *,
    resume: Resume | None = None,
    on_epoch: Callable[[Population], None] = lambda population: None,
) -> Population:
    """Trains one network for each member; what happens to one does not depend on the others.

    Initial weights, order of images and dropout masks depend on a member's seed alone, so rules and learning rates see the
    same. With `resume`, a checkpoint is written after each epoch and picked up again.

    Args:
        data, test: on the device to train on. Test images influence something only with `select_on: test`.
        on_epoch: called after each epoch.

    Raises UserError for settings that do not fit the rule or the data, and if the population needs more memory than there is,
    with the number of members that would fit. A member that diverges is marked, and the others go on.
    """
    run = _Run(rule, list(members), data, test, settings)
    if resume is not None:
        run.load(load_checkpoint(resume.path, resume.identity, files.warn))
    population = run.population
    while population.epoch < settings.epochs and not bool(((population.stopped > 0) | (population.diverged > 0)).all()):
        run.epoch()
        if resume is not None:
            save_checkpoint(resume.path, resume.identity, run.state())
        on_epoch(population)
    return population


def for_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what `vmap` would for a population of one, without the cost of `vmap` on every operation."""

    def mapped(*arguments: Any) -> Any:
        alone = tree_map(lambda value: value[0], arguments)
        return tree_map(lambda value: value[None], function(*alone))

    return mapped


class _Run:
    def __init__(
        self, rule: UpdateRule, members: list[Member], data: FlatImages, test: FlatImages, settings: PopulationSettings
    ) -> None:
        self.settings, self.loss = settings, LOSSES[settings.loss]
        self.measured_on, self.data = self._split(data, test)
        self.test = test.part(torch.arange(min(settings.curve_images, len(test)), device=test.labels.device))
        self.device, self.dtype = data.pixels.device, getattr(torch, settings.precision)
        self.network = network_of(
            data.pixels.shape[1],
            settings.hidden,
            data.n_classes,
            settings.activation,
            settings.convolutions,
            data.shape,
        )
        if self.network.convolutions and not rule.convolutional:
            raise UserError(f"{rule.name} knows fully connected layers only; leave convolutions out")
        if settings.dropout and not rule.dropout:
            raise UserError(f"{rule.name} knows no dropout; leave it out")
        rule_settings = parse(rule.settings, settings.rule, f"settings of rule {rule.name}")
        check_memory(self.network, 0, len(members), settings, self.device)  # before anything of that size is drawn
        n_feedback = sum(
            value.numel()
            for value in draw_start(rule, rule_settings, self.network, settings, members[0].seed)[1].values()
        )
        check_memory(self.network, n_feedback, len(members), settings, self.device)
        for warning in rule.warnings(self.network, rule_settings):
            files.warn(warning)
        self.rule, self.rule_settings = rule, rule_settings
        self.fixed = {
            f"{kind}{layer}"
            for kind in ("weight", "bias")
            for layer in range(1, self.network.n_layers + 1)
            if (kind == "bias" and not settings.biases) or layer not in (settings.trained_layers or [layer])
        }
        mapped = vmap if len(members) > 1 else for_one
        self.step = mapped(partial(rule.step, self.network, self.loss, rule_settings))
        self.feedback_step: Callable[..., Parameters] | None = None
        if rule.feedback_step is not None:
            self.feedback_step = mapped(partial(rule.feedback_step, self.network, self.loss, rule_settings))
        self.rates = torch.tensor([member.learning_rate for member in members], dtype=self.dtype, device=self.device)
        self.streams = Streams([member.seed for member in members], self.device)
        self.adversary, self.training_adversary = settings.adversaries()
        self.population = self._start(rule, rule_settings, members)
        self.optimizer = Optimizer(settings.optimizer_settings())
        self.feedback_optimizer = Optimizer(settings.feedback_optimizer_settings() or OptimizerSettings())
        probe = torch.randperm(len(self.data), generator=randomness.generator("population", "probe"))[
            : settings.angle_images
        ]
        self.probe = self.data.part(probe.to(self.device))

    def _split(self, data: FlatImages, test: FlatImages) -> tuple[FlatImages, FlatImages]:
        if self.settings.select_on == "test":
            return test, data
        train, validation = held_out(data, self.settings.validation_images)
        return validation, train

    def _start(self, rule: UpdateRule, rule_settings: Any, members: list[Member]) -> Population:
        seeds = {member.seed for member in members}
        drawn = {seed: draw_start(rule, rule_settings, self.network, self.settings, seed) for seed in seeds}

        def stacked(kind: int) -> Parameters:
            of = [drawn[member.seed][kind] for member in members]
            return {name: torch.stack([one[name] for one in of]).to(self.device, self.dtype) for name in of[0]}

        start, feedback = stacked(0), stacked(1)
        best, best_feedback = ({name: value.clone() for name, value in of.items()} for of in (start, feedback))
        never = torch.zeros(len(members), dtype=torch.int64)
        return Population(
            members,
            self.network,
            start,
            feedback,
            best,
            best_feedback,
            best_score=never - 1.0,
            best_epoch=never,
            diverged=never,
            stopped=never,
            norm=norms(start),
            history=[[] for _ in members],
        )

    def state(self) -> dict[str, Any]:
        optimizers = [{"state": one.state, "n_steps": one.n_steps} for one in (self.optimizer, self.feedback_optimizer)]
        return {"population": self.population.state(), "optimizers": optimizers, "streams": self.streams.get_state()}

    def load(self, saved: dict[str, Any] | None) -> None:
        if saved is None:
            return
        for name, value in saved["population"].items():
            at = {key: one.to(self.device) for key, one in value.items()} if isinstance(value, dict) else value
            setattr(self.population, name, at)
        for one, state in zip((self.optimizer, self.feedback_optimizer), saved["optimizers"], strict=True):
            one.state, one.n_steps = (
                {name: value.to(self.device) for name, value in state["state"].items()},
                state["n_steps"],
            )
        self.streams.set_state(saved["streams"])

    @torch.no_grad()
    def epoch(self) -> None:
        """Trains for one epoch, measures, and keeps what is best."""
        population, settings = self.population, self.settings
        population.epoch += 1
        rates = self.rates * settings.optimizer_settings().rate_factor(population.epoch)
        rates = rates.where(population.stopped.to(self.device) == 0, 0.0)
        losses = torch.zeros(len(population.members), dtype=torch.float64, device=self.device)
        correct = torch.zeros(len(population.members), dtype=torch.int64, device=self.device)
        parts = self.streams.orders(len(self.data)).split(settings.batch_size, dim=1)
        bad = torch.full_like(correct, len(parts))
        if population.epoch == 1:
            for _ in range(self.rule.initial_steps(self.rule_settings)):
                self._mirror(rates)
            self._feedback_epochs(settings.feedback_epochs, rates)
        title = f"epoch {population.epoch}/{settings.epochs}"
        for index, chosen in enumerate(tqdm(parts, title, leave=False, disable=not sys.stderr.isatty())):
            images, targets = self.data.batch(chosen, self.dtype)
            adversarial = self._adversarial(self.training_adversary, images, targets)
            logits = self._step(images, targets, rates)
            loss = self.loss.value(logits, targets).sum(1)
            if adversarial is not None:
                self._step(adversarial, targets, rates)
            if self.rule.follows:
                self._mirror(rates)
            # Summed on the device: reading a number each step would make a GPU wait.
            losses += loss
            correct += is_right(logits, targets).sum(1)
            bad = torch.where(loss.isfinite(), bad, bad.clamp(max=index))
        self._feedback_epochs(settings.extra_feedback_epochs, rates)
        rows = {"loss": losses / len(self.data), "train_accuracy": correct.double() / len(self.data)} | self._measure()
        self._keep(bad.cpu(), len(parts), {name: value.double().cpu() for name, value in rows.items()})

    def _step(self, images: Tensor, targets: Tensor, rates: Tensor) -> Tensor:
        keep = 1 - self.settings.dropout
        masks: tuple[Tensor, ...] = ()
        if keep < 1:
            shapes = [(images.shape[1], width) for width in self.settings.hidden]
            masks = tuple(self.streams.masks(shape, keep, self.dtype) for shape in shapes)
        update = self.step(
            self.population.parameters, self.population.feedback, Batch(images, targets, masks, self._noise(images))
        )
        apart = self.settings.feedback_optimizer is not None
        taught = {name: one for name, one in update.directions.items() if apart and name in self.population.feedback}
        self._descend(
            self.optimizer, {name: one for name, one in update.directions.items() if name not in taught}, rates
        )
        self._descend(self.feedback_optimizer, taught, self._feedback_rates(rates))
        logits: Tensor = update.logits
        return logits

    def _noise(self, images: Tensor, stream: str = "noise") -> tuple[Tensor, ...]:
        """Returns what the rule's step needs of N(0, 1), (P, B, width) each."""
        if not self.rule.noisy_step:
            return ()
        widths = self.rule.noise(self.network, self.rule_settings)
        return tuple(self.streams.normal((images.shape[1], width), self.dtype, stream) for width in widths)

    def _mirror(self, rates: Tensor) -> None:
        """Takes a feedback step that needs no images."""
        assert self.feedback_step is not None
        widths = self.rule.noise(self.network, self.rule_settings)
        noise = tuple(
            self.streams.uniform((self.settings.batch_size, width), self.dtype, "feedback noise") for width in widths
        )
        nothing = torch.empty(len(rates), 0, device=self.device, dtype=self.dtype)
        directions = self.feedback_step(
            self.population.parameters, self.population.feedback, Batch(nothing, nothing, (), noise)
        )
        self._descend(self.feedback_optimizer, directions, self._feedback_rates(rates))

    def _feedback_epochs(self, n: int, rates: Tensor) -> None:
        """Goes over the training images n times, with feedback alone learning."""
        if n and (self.feedback_step is None or self.rule.follows):
            raise UserError(
                f"{self.rule.name} has no feedback to train in epochs of its own; leave feedback_epochs and extra_feedback_epochs out"
            )
        for _ in range(n):
            for chosen in self.streams.orders(len(self.data), "feedback order").split(self.settings.batch_size, dim=1):
                images, targets = self.data.batch(chosen, self.dtype)
                assert self.feedback_step is not None
                batch = Batch(images, targets, (), self._noise(images, "feedback noise"))
                directions = self.feedback_step(self.population.parameters, self.population.feedback, batch)
                self._descend(self.feedback_optimizer, directions, self._feedback_rates(rates))

    def _feedback_rates(self, rates: Tensor) -> Tensor:
        own = self.settings.feedback_learning_rate
        return rates if own is None else torch.where(rates == 0, rates, own)  # a member that stopped stays

    def _descend(self, optimizer: Optimizer, directions: Parameters, rates: Tensor) -> None:
        learning = {name: direction for name, direction in directions.items() if name not in self.fixed}
        if learning:
            optimizer.step(self.population.parameters | self.population.feedback, learning, rates)

    def _adversarial(self, adversary: AdversarySettings | None, images: Tensor, targets: Tensor) -> Tensor | None:
        if adversary is None:
            return None
        shape = (images.shape[-2], images.shape[-1])
        start = self.streams.uniform(shape, self.dtype) if adversary.random_start else None
        return adversarial_images(self.network, adversary, self.population.parameters, images, targets, start)

    def _measure(self) -> dict[str, Tensor]:
        """Returns accuracies (P,) on what members are chosen by, and whatever else the settings and the rule ask for."""
        settings, population, prefix = self.settings, self.population, self.settings.select_on
        found = {}
        if len(self.measured_on):
            found[f"{prefix}_accuracy"] = accuracies(self.network, population.parameters, self.measured_on, self.dtype)
        if settings.select == "adversarial":
            found[f"{prefix}_adversarial_accuracy"] = self._robust(self.measured_on, settings.adversary_images)
        if self.rule.measure is not None:
            found |= vmap(partial(self.rule.measure, self.network, self.rule_settings))(
                population.parameters, population.feedback
            )
        if len(self.probe):
            chosen = torch.arange(len(self.probe), device=self.device).expand(len(population.members), -1)
            images, targets = self.probe.batch(chosen, self.dtype)
            batch = Batch(images, targets, (), self._noise(images, "measuring"))
            directions = self.step(population.parameters, population.feedback, batch).directions
            found["update_angle"] = update_angles(self.network, self.loss, population.parameters, directions, batch)
            if settings.layer_angles:
                found |= layer_angles(
                    self.network, self.loss, population.parameters, directions, batch, settings.dampings
                )
        if len(self.test):
            found["test_accuracy"] = accuracies(self.network, population.parameters, self.test, self.dtype)
            found["test_adversarial_accuracy"] = self._robust(self.test, len(self.test))
        return found

    def _robust(self, data: FlatImages, n_images: int) -> Tensor:
        assert self.adversary is not None
        return robust_accuracies(self.network, self.population.parameters, data, n_images, self.adversary, self.dtype)

    def _keep(self, bad: Tensor, n_steps: int, rows: dict[str, Tensor]) -> None:
        """Notes the epoch's numbers, divergence and stops; keeps the parameters of members that are better than before."""
        population, settings = self.population, self.settings
        sizes = norms(population.parameters)
        finite = (
            torch.stack([sizes, *([norms(population.feedback)] if population.feedback else []), *rows.values()])
            .isfinite()
            .all(0)
        )
        bad = torch.where(finite, bad, bad.clamp(max=n_steps - 1))  # the last step's loss was from before it
        newly = (bad < n_steps) & (population.diverged == 0)
        population.diverged = torch.where(newly, (population.epoch - 1) * n_steps + bad + 1, population.diverged)
        population.norm = torch.where(population.diverged == 0, sizes, population.norm)
        running = (population.diverged == 0) & (population.stopped == 0)
        adversarial = "adversarial_" if settings.select == "adversarial" else ""
        last = settings.select == "last"
        score = (
            torch.full_like(population.best_score, population.epoch)
            if last
            else rows[f"{settings.select_on}_{adversarial}accuracy"]
        )
        better = running & (score > population.best_score)
        population.best_score = torch.where(better, score, population.best_score)
        population.best_epoch = torch.where(better, population.epoch, population.best_epoch)
        chosen = better.to(self.device)
        for kept, present in (
            (population.best, population.parameters),
            (population.best_feedback, population.feedback),
        ):
            for name, value in kept.items():
                value[chosen] = present[name][chosen]
        for index in running.nonzero().flatten().tolist():
            population.history[index].append(
                {"epoch": population.epoch} | {name: float(value[index]) for name, value in rows.items()}
            )
        if settings.patience is not None:
            out = running & (population.epoch - population.best_epoch >= settings.patience)
            population.stopped = torch.where(out, population.epoch, population.stopped)
