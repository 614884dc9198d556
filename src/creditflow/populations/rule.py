"""What an update rule is: pure functions for ONE network, which `torch.func.vmap` turns into those of a population."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from creditflow.core import plugins
from creditflow.core.settings import SettingsModel, parse
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        images: (B, n_0).
        targets: one-hot labels (B, C).
        masks: a dropout mask (B, n_l) for each hidden layer; empty without dropout.
        noise: random numbers (B, width) for each of the rule's `noise_widths`; empty for rules that ask for none.
        presynaptic: in a step on adversarial images, the `presynaptic` of the update on the natural ones; else empty.
    """

    images: Tensor
    targets: Tensor
    masks: tuple[Tensor, ...] = ()
    noise: tuple[Tensor, ...] = ()
    presynaptic: tuple[Tensor, ...] = ()


class Update(NamedTuple):
    """What a step proposes.

    Attributes:
        directions: the directions that the optimiser descends, as if each were a gradient of the mean loss over the
            batch: for every parameter and every tensor of the feedback state that learns.
        logits: (B, C), computed before the update.
        presynaptic: an input (B, n_0) of the first layer that the step on the adversarial versions of these images
            learns with; empty for rules that take that step's own input.
    """

    directions: Parameters
    logits: Tensor
    presynaptic: tuple[Tensor, ...] = ()


class Init(Protocol):
    """Draws the first feedback state of one network, in float64 on the CPU."""

    def __call__(self, network: Network, settings: Any, generator: torch.Generator) -> Parameters:
        """Returns tensors by name."""


class Step(Protocol):
    """Learns from one batch."""

    def __call__(
        self, network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Update:
        """Returns the update of the parameters and, for rules whose feedback learns within steps, of the feedback
        state."""


class FeedbackStep(Protocol):
    """Trains the feedback state alone."""

    def __call__(
        self, network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> Parameters:
        """Returns directions to descend, for tensors of the feedback state only."""


class NoiseWidths(Protocol):
    """Says which random numbers a rule needs."""

    def __call__(self, network: Network, settings: Any) -> tuple[int, ...]:
        """Returns the width of each tensor (B, width) in `Batch.noise`."""


class StepCount(Protocol):
    """Says how many feedback steps a rule takes before training."""

    def __call__(self, settings: Any) -> int:
        """Returns their number."""


class Measure(Protocol):
    """Measures a network after an epoch."""

    def __call__(
        self, network: Network, settings: Any, parameters: Parameters, feedback: Parameters
    ) -> dict[str, Tensor]:
        """Returns scalars by name, which the epoch's history keeps."""


class BatchMeasure(Protocol):
    """Measures a network on images after an epoch."""

    def __call__(
        self, network: Network, loss: Loss, settings: Any, parameters: Parameters, feedback: Parameters, batch: Batch
    ) -> dict[str, Tensor]:
        """Returns scalars by name, which the epoch's history keeps."""


class Warnings(Protocol):
    """Looks for reasons why a network and a rule do not go well together."""

    def __call__(self, network: Network, settings: Any) -> list[str]:
        """Returns what a user should know before such a network is trained: a line for each reason."""


def _no_state(network: Network, settings: Any, generator: torch.Generator) -> Parameters:
    return {}


def _no_noise(network: Network, settings: Any) -> tuple[int, ...]:
    return ()


def _no_steps(settings: Any) -> int:
    return 0


def _no_warnings(network: Network, settings: Any) -> list[str]:
    return []


@dataclass(frozen=True)
class UpdateRule:
    """An update rule (a file in `populations/rules`). What can be set is declared in
    `populations/rules/settings/<name>.py`.

    Attributes:
        name: id of the rule, which is the name of its file; `get_update_rule` fills it in.
        title: how papers write the rule's name; without one it is the id. This fact and the following ones are for
            tables and figures, which read them from the rule's file without importing it: write them out in the call.
        order: place of the rule in tables and figures, from small to large; rules without one come last, by their ids.
        color, marker: how figures draw the rule, as matplotlib writes a colour and a marker; without them it gets a
            spare style.
        step: learns from one batch.
        init: draws the feedback state; without it there is none.
        feedback_step: trains the feedback state alone. It is used in epochs in which feedback alone learns, or after
            each step of training, see `feedback_step_after_each_step`.
        feedback_step_after_each_step: whether each step of training is followed by a feedback step, which then gets
            noise but no images. Such a rule can also take `initial_feedback_steps` before training. It has no epochs in
            which feedback alone learns.
        initial_feedback_steps: number of feedback steps before training.
        noise_widths: widths of the noise in `Batch.noise`. The noise is uniform in [0, 1) for the feedback step of a
            rule with `feedback_step_after_each_step`; otherwise it is N(0, 1).
        step_takes_noise: whether `step` needs that noise, too.
        measure: numbers that each epoch's history keeps.
        loop: numbers that grow without bound where the rule's feedback drives itself. Where `stability_images` of the
            population asks for it, each epoch's history keeps their ratios to the start.
        measure_batch: the same, measured on the training images that `angle_images` of the population sets aside.
        warnings: what a user should know before training.
        convolutional: whether the rule can train convolutional layers.
        dropout: whether the rule can work with dropout masks.
        connected: pathways that exist: "uu" within the ascending stream, "dd" within the descending stream, "ud" from
            the ascending to the descending stream, "du" back. Tables read this fact and the next from the file, too.
        plastic: those pathways that learn.
    """

    step: Step
    name: str = ""
    title: str = ""
    order: float | None = None
    color: str | None = None
    marker: str | None = None
    init: Init = _no_state
    feedback_step: FeedbackStep | None = None
    feedback_step_after_each_step: bool = False
    initial_feedback_steps: StepCount = _no_steps
    noise_widths: NoiseWidths = _no_noise
    step_takes_noise: bool = False
    measure: Measure | None = None
    loop: Measure | None = None
    measure_batch: BatchMeasure | None = None
    warnings: Warnings = _no_warnings
    convolutional: bool = False
    dropout: bool = False
    connected: tuple[str, ...] = ()
    plastic: tuple[str, ...] = ()

    def parse_settings(self, values: Mapping[str, Any]) -> SettingsModel:
        """Returns the rule's own settings, checked. Raises UserError as `parse` does."""
        return parse(plugins.settings_class("update_rule", self.name), values, f"settings of rule {self.title}")


def get_update_rule(name: str) -> UpdateRule:
    """Returns the rule with this id. Raises UserError if there is none."""
    rule: UpdateRule = plugins.load("update_rule", name).RULE
    return replace(rule, name=name, title=rule.title or name)
