"""Hyper-parameters of a population's training."""

import math
from dataclasses import dataclass, field
from typing import Any

from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.adversaries import AdversarySettings
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import ACTIVATIONS
from creditflow.populations.optimizers import OptimizerSettings


@dataclass(frozen=True)
class PopulationSettings:
    """What all members have in common.

    Attributes:
        hidden: widths of the hidden layers.
        convolutions: output channels of convolutional layers before those; see `Network`.
        activation, loss: see `ACTIVATIONS` and `LOSSES`.
        initialisation: see `initial_parameters`.
        epochs, batch_size: passes over the training images, images per update; the last, smaller batch of an epoch counts too.
        dropout: share of hidden units left out of each step; the others are scaled up.
        precision: "float32" or "float64".
        optimizer: see `OptimizerSettings`.
        feedback_optimizer, feedback_learning_rate: of the feedback state, for all members. Without, it learns by `optimizer` and the
            member's rate within steps, and by plain descent at that rate where it learns alone.
        feedback_epochs, extra_feedback_epochs: passes in which feedback alone learns, before training and after each epoch.
        select: what the learning rate and each member's epoch are chosen by: "natural" or "adversarial" accuracy, or "last", which
            chooses nothing and needs a single learning rate.
        select_on: "validation", images held out of the training split, or "test", which the PEPITA paper does: its numbers then
            come from the images that chose the network.
        validation_images: how many training images are held out; the same ones for every member.
        patience: a member stops after so many epochs without a better choice; None for never.
        adversary: makes images for `adversarial_training` and for adversarial accuracy.
        adversary_images: images of the validation (or test) split on which adversarial accuracy is measured.
        adversarial_training: whether each step on natural images is followed by one on their adversarial versions.
        training_adversary: makes those, if they differ from `adversary`'s.
        biases: whether there are any that learn; without, they are zero.
        angle_images: training images on which each epoch measures the angle between the rule's update and the gradient; 0 for none.
        layer_angles: whether that is done layer by layer as well, and for Gauss-Newton targets with each of `dampings`.
        pixel_mean, pixel_deviation: networks see pixels, in [0, 1], less the one, over the other.
        trained_layers: layers 1, 2, ... whose weights learn; all if absent. Feedback learns in any case.
        curve_images: test images on which natural and adversarial accuracy are measured after each epoch; they influence nothing.
        rule: settings of the rule.
    """

    epochs: int
    batch_size: int
    hidden: list[int] | tuple[int, ...]
    convolutions: list[int] | tuple[int, ...] = ()
    activation: str = "relu"
    loss: str = "mse_softmax"
    initialisation: str = "he_uniform"
    dropout: float = 0.0
    precision: str = "float32"
    optimizer: dict[str, Any] = field(default_factory=dict)
    feedback_optimizer: dict[str, Any] | None = None
    feedback_learning_rate: float | None = None
    feedback_epochs: int = 0
    extra_feedback_epochs: int = 0
    select: str = "natural"
    select_on: str = "validation"
    validation_images: int = 5000
    patience: int | None = None
    adversary: dict[str, Any] | None = None
    adversary_images: int = 500
    adversarial_training: bool = False
    training_adversary: dict[str, Any] | None = None
    biases: bool = True
    angle_images: int = 0
    layer_angles: bool = False
    dampings: list[float] | tuple[float, ...] = (0.0,)
    pixel_mean: float = 0.0
    pixel_deviation: float = 1.0
    trained_layers: list[int] | None = None
    curve_images: int = 0
    rule: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError("epochs and batch_size must be at least 1")
        if not self.hidden or any(not isinstance(width, int) or width < 1 for width in self.hidden):
            raise ValueError("hidden must be one or more widths of at least 1")
        if any(not isinstance(channels, int) or channels < 1 for channels in self.convolutions):
            raise ValueError("convolutions must be numbers of channels of at least 1")
        if self.convolutions and (self.dropout or self.layer_angles or self.adversary is not None):
            raise ValueError(
                "dropout, layer_angles and an adversary need fully connected layers; leave them or convolutions out"
            )
        for name, known in (("activation", ACTIVATIONS), ("loss", LOSSES), ("precision", ("float32", "float64"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if not (0 <= self.dropout < 1 and math.isfinite(self.dropout)):
            raise ValueError("dropout must be in [0, 1)")
        if self.select not in ("natural", "adversarial", "last") or self.select_on not in ("validation", "test"):
            raise ValueError("select must be natural, adversarial or last; select_on validation or test")
        if self.select != "last" and self.select_on == "validation" and self.validation_images < 1:
            raise ValueError(
                "validation_images is 0, but something is to be selected; hold images out, or say select: last"
            )
        if self.patience is not None and (self.patience < 1 or self.select == "last"):
            raise ValueError("patience must be at least 1, and needs a selection")
        if self.select == "adversarial" and not self.adversary_images:
            raise ValueError("adversary_images is 0, but something is to be selected by adversarial accuracy")
        if self.select_on == "test" and self.curve_images:
            raise ValueError(
                "curve_images are test images, which with select_on: test would choose the network; leave them out"
            )
        if self.adversary is None and (self.select == "adversarial" or self.adversarial_training or self.curve_images):
            raise ValueError("adversarial selection, adversarial training and curves need an adversary")
        if min(self.validation_images, self.adversary_images, self.curve_images, self.angle_images) < 0:
            raise ValueError("numbers of images must not be negative")
        if self.layer_angles and not self.angle_images:
            raise ValueError("layer_angles needs angle_images")
        if any(not 0 <= damping < math.inf for damping in self.dampings):
            raise ValueError("dampings must be at least 0 and finite")
        if not (0 <= self.pixel_mean <= 1 and 0 < self.pixel_deviation < math.inf):
            raise ValueError("pixel_mean must be in [0, 1], pixel_deviation positive and finite")
        if self.adversary is not None and (self.pixel_mean, self.pixel_deviation) != (0.0, 1.0):
            raise ValueError(
                "a population's adversary knows pixels in [0, 1] only; leave pixel_mean and pixel_deviation out"
            )
        n_layers = len(self.convolutions) + len(self.hidden) + 1
        if self.trained_layers is not None and not set(self.trained_layers) & set(range(1, n_layers + 1)):
            raise ValueError(f"trained_layers must name some of the layers 1 to {n_layers}")
        if min(self.feedback_epochs, self.extra_feedback_epochs) < 0:
            raise ValueError("feedback_epochs and extra_feedback_epochs must be at least 0")
        if self.feedback_learning_rate is not None and not 0 < self.feedback_learning_rate < math.inf:
            raise ValueError("feedback_learning_rate must be positive and finite")
        if self.feedback_learning_rate is not None and self.feedback_optimizer is None:
            raise ValueError("feedback_learning_rate needs a feedback_optimizer")
        try:
            self.optimizer_settings(), self.feedback_optimizer_settings()
            for adversary in (self.adversary, self.training_adversary):
                if adversary is not None:
                    parse(AdversarySettings, adversary, "adversary")
        except UserError as error:
            raise ValueError(str(error)) from None

    def optimizer_settings(self) -> OptimizerSettings:
        """Returns the optimiser's own."""
        return parse(OptimizerSettings, self.optimizer, "optimizer")

    def feedback_optimizer_settings(self) -> OptimizerSettings | None:
        """Returns those of the feedback state's own optimiser, if it has one."""
        return (
            None
            if self.feedback_optimizer is None
            else parse(OptimizerSettings, self.feedback_optimizer, "feedback_optimizer")
        )

    def measured_images(self, n_data: int, n_test: int) -> dict[str, int]:
        """Returns over how many images each number of a history is, for a training split of n_data images."""
        chosen_on, n_train = (
            (n_test, n_data) if self.select_on == "test" else (self.validation_images, n_data - self.validation_images)
        )
        counts = {
            f"{self.select_on}_accuracy": chosen_on,
            f"{self.select_on}_adversarial_accuracy": min(self.adversary_images, chosen_on),
        }
        counts |= dict.fromkeys(("loss", "train_accuracy"), n_train)
        if self.curve_images:
            counts |= dict.fromkeys(("test_accuracy", "test_adversarial_accuracy"), min(self.curve_images, n_test))
        if self.angle_images:
            counts["update_angle"] = min(self.angle_images, n_train)
        return counts

    def adversaries(self) -> tuple[AdversarySettings | None, AdversarySettings | None]:
        """Returns what measures, and what makes images to train on."""
        measures = None if self.adversary is None else parse(AdversarySettings, self.adversary, "adversary")
        own = (
            measures
            if self.training_adversary is None
            else parse(AdversarySettings, self.training_adversary, "training_adversary")
        )
        return measures, own if self.adversarial_training else None
