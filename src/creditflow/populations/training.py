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
from creditflow.populations.adversaries import adversarial_images
from creditflow.populations.images import FlatImages, Streams, held_out, is_right
from creditflow.populations.losses import LOSSES
from creditflow.populations.measuring import accuracies, layer_angles, robust_accuracies, update_angles
from creditflow.populations.network import Network, Parameters
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.optimizers import Optimizer
from creditflow.populations.population import Member, Population
from creditflow.populations.progress import note_epoch
from creditflow.populations.rule import Batch, Update, UpdateRule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.stability import Stability
from creditflow.populations.start import check_rule, network_for, start_population


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
    """Trains one network for each member. What happens to a member does not depend on the others.

    Initial weights, order of images and dropout masks depend on a member's seed alone, so all rules and learning rates
    see the same. With `resume`, a checkpoint is written after each epoch, and a later call goes on from it.

    Args:
        data, test: on the device to train on. Test images influence training only with `select_on: test`.
        on_epoch: is called after each epoch.

    Raises UserError for settings that do not fit the rule or the data. If the population needs more memory than there
    is, the error names the number of members that would fit. A member that diverges is marked, and the others go on.
    """
    run = PopulationRun(rule, members, data, test, settings)
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
    """Returns what `vmap` would return for a population of one, without the cost of `vmap` in every operation."""

    def mapped(*arguments: Any) -> Any:
        alone = tree_map(lambda value: value[0], arguments)
        return tree_map(lambda value: value[None], function(*alone))

    return mapped


def fixed_parameters(network: Network, settings: PopulationSettings) -> set[str]:
    """Returns the names of the weights and biases that do not learn."""
    layers = range(1, network.n_layers + 1)
    trained = set(layers if settings.trained_layers is None else settings.trained_layers)
    fixed = {f"{kind}{layer}" for kind in ("weight", "bias") for layer in set(layers) - trained}
    return fixed if settings.biases else fixed | {f"bias{layer}" for layer in layers}


class PopulationRun:
    """One training, epoch by epoch: the population, its optimisers and its random numbers."""

    def __init__(
        self,
        rule: UpdateRule,
        members: Sequence[Member],
        data: FlatImages,
        test: FlatImages,
        settings: PopulationSettings,
    ) -> None:
        self.rule, self.settings, self.loss = rule, settings, LOSSES[settings.loss]
        self.device, self.dtype = data.pixels.device, getattr(torch, settings.precision)
        self._divide(data, test)
        self.network = network_for(data, settings)
        check_rule(rule, self.network, settings)
        self.rule_settings = rule.parse_settings(settings.rule)
        self.population = start_population(rule, self.rule_settings, self.network, members, settings, self.device)
        self.stability = Stability(rule, self.rule_settings, self.network, settings, test)
        self.stability.begin(self.population.parameters, self.population.feedback)
        self.fixed = fixed_parameters(self.network, settings)
        self.rates = torch.tensor([member.learning_rate for member in members], dtype=self.dtype, device=self.device)
        self.streams = Streams([member.seed for member in members], self.device)
        self.optimizer = Optimizer(settings.optimizer)
        self.feedback_optimizer = Optimizer(settings.feedback_optimizer or OptimizerSettings())
        mapped = vmap if len(members) > 1 else for_one
        self.step = mapped(partial(rule.step, self.network, self.loss, self.rule_settings))
        self.feedback_step: Callable[..., Parameters] | None = None
        if rule.feedback_step is not None:
            self.feedback_step = mapped(partial(rule.feedback_step, self.network, self.loss, self.rule_settings))

    def _divide(self, data: FlatImages, test: FlatImages) -> None:
        """Sets what is trained on, what members are chosen by, what curves and angles are measured on."""
        settings = self.settings
        if settings.select_on == "test":
            self.data, self.measured_on = data, test
        else:
            self.data, self.measured_on = held_out(data, settings.validation_images)
        self.test = test.part(torch.arange(min(settings.curve_images, len(test)), device=test.labels.device))
        order = torch.randperm(len(self.data), generator=randomness.generator("population", "probe"))
        self.probe = self.data.part(order[: settings.angle_images].to(self.device))

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        optimizers = [
            {"state": optimizer.state, "n_steps": optimizer.n_steps}
            for optimizer in (self.optimizer, self.feedback_optimizer)
        ]
        return {"population": self.population.state(), "optimizers": optimizers, "streams": self.streams.get_state()}

    def load(self, saved: dict[str, Any] | None) -> None:
        """Sets what `state` returned; None changes nothing."""
        if saved is None:
            return
        for name, value in saved["population"].items():
            setattr(self.population, name, self._on_device(value) if isinstance(value, dict) else value)
        for optimizer, state in zip((self.optimizer, self.feedback_optimizer), saved["optimizers"], strict=True):
            optimizer.state, optimizer.n_steps = self._on_device(state["state"]), state["n_steps"]
        self.streams.set_state(saved["streams"])

    def _on_device(self, tensors: Parameters) -> Parameters:
        return {name: value.to(self.device) for name, value in tensors.items()}

    @torch.no_grad()
    def epoch(self) -> None:
        """Trains for one epoch, measures, and keeps what is best."""
        population = self.population
        population.epoch += 1
        rates = self.rates * self.settings.optimizer.rate_factor(population.epoch)
        rates = rates.where(population.stopped.to(self.device) == 0, 0.0)
        batches = self.streams.orders(len(self.data)).split(self.settings.batch_size, dim=1)
        if population.epoch == 1:
            for _ in range(self.rule.initial_feedback_steps(self.rule_settings)):
                self._feedback_step_on_noise(rates)
            self._feedback_epochs(self.settings.feedback_epochs, rates)
        rows, first_bad_step = self._train(batches, rates)
        self._feedback_epochs(self.settings.extra_feedback_epochs, rates)
        rows |= self.measure()
        on_cpu = {name: value.double().cpu() for name, value in rows.items()}
        note_epoch(population, self.settings, first_bad_step.cpu(), len(batches), on_cpu)

    def _train(self, batches: Sequence[Tensor], rates: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Takes the steps of an epoch.

        Returns loss and accuracy (P,), and the first step (P,) whose loss was not finite.
        """
        losses = torch.zeros(len(rates), dtype=torch.float64, device=self.device)
        correct = torch.zeros(len(rates), dtype=torch.int64, device=self.device)
        bad = torch.full_like(correct, len(batches))
        title = f"epoch {self.population.epoch}/{self.settings.epochs}"
        for index, chosen in enumerate(tqdm(batches, title, leave=False, disable=not sys.stderr.isatty())):
            images, targets = self.data.batch(chosen, self.dtype)
            adversarial = self._adversarial(images, targets)
            logits, presynaptic = self._step(images, targets, rates)
            loss = self.loss.value(logits, targets).sum(1)
            if adversarial is not None:
                self._step(adversarial, targets, rates, presynaptic)
            if self.rule.feedback_step_after_each_step:
                self._feedback_step_on_noise(rates)
            # The sums stay on the device: reading a number in each step would make a GPU wait.
            losses += loss
            correct += is_right(logits, targets).sum(1)
            bad = torch.where(loss.isfinite(), bad, bad.clamp(max=index))
        return {"loss": losses / len(self.data), "train_accuracy": correct.double() / len(self.data)}, bad

    def _step(
        self, images: Tensor, targets: Tensor, rates: Tensor, presynaptic: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Takes a training step. Returns the logits (P, B, C) from before, and `Update.presynaptic`."""
        keep = 1 - self.settings.dropout
        masks: tuple[Tensor, ...] = ()
        if keep < 1:
            shapes = [(images.shape[1], width) for width in self.settings.hidden]
            masks = tuple(self.streams.masks(shape, keep, self.dtype) for shape in shapes)
        batch = Batch(images, targets, masks, self._noise(images), presynaptic)
        update: Update = self.step(self.population.parameters, self.population.feedback, batch)
        apart = self.population.feedback if self.settings.feedback_optimizer is not None else {}
        directions = {name: value for name, value in update.directions.items() if name not in apart}
        feedback_directions = {name: value for name, value in update.directions.items() if name in apart}
        self._descend(self.optimizer, directions, rates)
        self._descend(self.feedback_optimizer, feedback_directions, self._feedback_rates(rates))
        return update.logits, update.presynaptic

    def _noise(self, images: Tensor, stream: str = "noise") -> tuple[Tensor, ...]:
        """Returns the noise from N(0, 1) that the rule's step needs, (P, B, width) each."""
        if not self.rule.step_takes_noise:
            return ()
        widths = self.rule.noise_widths(self.network, self.rule_settings)
        return tuple(self.streams.normal((images.shape[1], width), self.dtype, stream) for width in widths)

    def _feedback_step_on_noise(self, rates: Tensor) -> None:
        """Takes a feedback step that needs no images."""
        assert self.feedback_step is not None
        n, widths = self.settings.batch_size, self.rule.noise_widths(self.network, self.rule_settings)
        noise = tuple(self.streams.uniform((n, width), self.dtype, "feedback noise") for width in widths)
        nothing = torch.empty(len(rates), 0, device=self.device, dtype=self.dtype)
        batch = Batch(nothing, nothing, (), noise)
        directions = self.feedback_step(self.population.parameters, self.population.feedback, batch)
        self._descend(self.feedback_optimizer, directions, self._feedback_rates(rates))

    def _feedback_epochs(self, n: int, rates: Tensor) -> None:
        """Goes over the training images n times, while feedback alone learns."""
        if n and (self.feedback_step is None or self.rule.feedback_step_after_each_step):
            raise UserError(
                f"{self.rule.title} has no feedback to train in epochs of its own;"
                " leave feedback_epochs and extra_feedback_epochs out"
            )
        for _ in range(n):
            for chosen in self.streams.orders(len(self.data), "feedback order").split(self.settings.batch_size, dim=1):
                images, targets = self.data.batch(chosen, self.dtype)
                assert self.feedback_step is not None
                batch = Batch(images, targets, (), self._noise(images, "feedback noise"))
                directions = self.feedback_step(self.population.parameters, self.population.feedback, batch)
                self._descend(self.feedback_optimizer, directions, self._feedback_rates(rates))

    def _feedback_rates(self, rates: Tensor) -> Tensor:
        feedback_rate = self.settings.feedback_learning_rate
        if feedback_rate is None:
            return rates
        return torch.where(rates == 0, rates, feedback_rate)  # a member that stopped stays as it is

    def _descend(self, optimizer: Optimizer, directions: Parameters, rates: Tensor) -> None:
        learning = {name: direction for name, direction in directions.items() if name not in self.fixed}
        if learning:
            optimizer.step(self.population.parameters | self.population.feedback, learning, rates)

    def _adversarial(self, images: Tensor, targets: Tensor) -> Tensor | None:
        """Returns adversarial versions of the images for adversarial training; None without it."""
        adversary = self.settings.adversary_of_training
        if adversary is None:
            return None
        shape = (images.shape[-2], images.shape[-1])
        start = self.streams.uniform(shape, self.dtype) if adversary.random_start else None
        return adversarial_images(self.network, adversary, self.population.parameters, images, targets, start)

    def measure(self) -> dict[str, Tensor]:
        """Returns the accuracies (P,) that choose members, and whatever else the settings and the rule ask for."""
        settings, population, chosen_on = self.settings, self.population, self.settings.select_on
        rows = {}
        if len(self.measured_on):
            rows[f"{chosen_on}_accuracy"] = self._accuracies(self.measured_on)
        if settings.select == "adversarial":
            rows[f"{chosen_on}_adversarial_accuracy"] = self._robust(self.measured_on, settings.adversary_images)
        if self.rule.measure is not None:
            measured = vmap(partial(self.rule.measure, self.network, self.rule_settings))
            rows |= measured(population.parameters, population.feedback)
        if len(self.probe):
            rows |= self._angles()
        if len(self.test):
            rows["test_accuracy"] = self._accuracies(self.test)
            rows["test_adversarial_accuracy"] = self._robust(self.test, len(self.test))
        return rows | self.stability.measured(population.parameters, population.feedback)

    def _angles(self) -> dict[str, Tensor]:
        parameters, feedback = self.population.parameters, self.population.feedback
        chosen = torch.arange(len(self.probe), device=self.device).expand(len(self.population.members), -1)
        images, targets = self.probe.batch(chosen, self.dtype)
        batch = Batch(images, targets, (), self._noise(images, "measuring"))
        directions = self.step(parameters, feedback, batch).directions
        rows = {"update_angle": update_angles(self.network, self.loss, parameters, directions, batch)}
        if self.rule.measure_batch is not None:
            measured = vmap(partial(self.rule.measure_batch, self.network, self.loss, self.rule_settings))
            rows |= measured(parameters, feedback, batch)
        if self.settings.layer_angles:
            dampings = self.settings.dampings
            rows |= layer_angles(self.network, self.loss, parameters, directions, batch, dampings)
        return rows

    def _accuracies(self, data: FlatImages) -> Tensor:
        return accuracies(self.network, self.population.parameters, data, self.dtype)

    def _robust(self, data: FlatImages, n_images: int) -> Tensor:
        adversary = self.settings.adversary
        assert adversary is not None
        return robust_accuracies(self.network, self.population.parameters, data, n_images, adversary, self.dtype)
