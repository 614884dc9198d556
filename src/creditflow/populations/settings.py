"""Settings of a population's training."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from creditflow.core.settings import Many, SettingsModel
from creditflow.populations.adversary_settings import AdversarySettings
from creditflow.populations.choices import ActivationName, InitialisationName, LossName
from creditflow.populations.optimizer_settings import OptimizerSettings

#: Units of a layer, or output channels of a convolution.
Width = Annotated[int, Field(ge=1, le=10_000_000)]

Epochs = Annotated[int, Field(ge=0, le=1_000_000)]

Images = Annotated[int, Field(ge=0, le=10_000_000)]


class PopulationSettings(SettingsModel):
    """What all members of a population have in common."""

    hidden: Many[Width] = Field(min_length=1)
    """Widths of the hidden layers."""
    convolutions: Many[Width] = ()
    """Output channels of convolutional layers before those: 5x5 pixels, activation, 3x3 max pooling in steps of 2."""
    activation: ActivationName = "relu"
    """Activation of the hidden layers."""
    loss: LossName = "mse_softmax"
    """Squared error of outputs (mse) or of probabilities (mse_softmax), or cross-entropy."""
    initialisation: InitialisationName = "he_uniform"
    """How weights are drawn: He uniform, torch.nn.Linear's default, N(0, 1 / n_in), or Xavier normal."""
    biases: bool = True
    """Whether there are biases that learn; without, biases are zero."""
    epochs: int = Field(ge=1, le=1_000_000)
    """Passes over the training images."""
    batch_size: int = Field(ge=1, le=10_000_000)
    """Images per update. The last batch of an epoch may be smaller, and counts too."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of hidden units that each step drops; the others are scaled up."""
    precision: Literal["float32", "float64"] = "float32"
    """Type of all parameters and computations."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Optimiser of the forward weights, and of feedback that learns within steps and has no optimiser of its own."""
    feedback_optimizer: OptimizerSettings | None = None
    """Optimiser of the feedback state; without, `optimizer` within steps and plain descent where it learns alone."""
    feedback_learning_rate: float | None = Field(None, gt=0, le=100)
    """Learning rate of `feedback_optimizer` for all members; each member's own learning rate if absent."""
    feedback_epochs: Epochs = 0
    """Passes before training in which feedback alone learns."""
    extra_feedback_epochs: Epochs = 0
    """Passes after each epoch in which feedback alone learns."""
    select: Literal["natural", "adversarial", "last"] = "natural"
    """What chooses learning rate and epoch: natural or adversarial accuracy; `last` takes the last epoch."""
    select_on: Literal["validation", "test"] = "validation"
    """Images that choose: held-out training images, or the test split itself, as in the PEPITA paper."""
    validation_images: Images = 5000
    """Number of training images that are held out, the same ones for every member."""
    patience: int | None = Field(None, ge=1, le=1_000_000)
    """A member stops after so many epochs without a better choice; never if absent."""
    adversary: AdversarySettings | None = None
    """Makes the images of adversarial accuracy, and those of adversarial training unless `training_adversary` does."""
    adversary_images: int = Field(500, ge=1, le=10_000_000)
    """Number of images on which adversarial accuracy is measured after each epoch."""
    adversarial_training: bool = False
    """Whether each step on natural images is followed by a step on their adversarial versions."""
    training_adversary: AdversarySettings | None = None
    """Makes the images of adversarial training, where they differ from `adversary`'s."""
    angle_images: Images = 0
    """Training images on which each epoch measures the angle between update and gradient; 0 for none."""
    layer_angles: bool = False
    """Whether the angle is also measured layer by layer, to the gradient and to the update of Gauss-Newton targets."""
    dampings: Many[Annotated[float, Field(ge=0, le=1e12)]] = Field((0.0,), min_length=1)
    """Dampings of those Gauss-Newton targets."""
    curve_images: Images = 0
    """Test images on which accuracies are measured after each epoch; they influence nothing."""
    stability_images: Images = 0
    """Test images on which each epoch measures how far the softmax saturates. Two numbers tell it: the median gap
    between the two largest logits, and the share of gradients of the adversary's loss that are exactly zero. Rules with
    a feedback loop then measure its growth, too. They influence nothing."""
    pixel_mean: float = Field(0.0, ge=0, le=1)
    """What is subtracted from pixels, which are in [0, 1], before networks see them."""
    pixel_deviation: float = Field(1.0, gt=0, le=100)
    """What pixels are then divided by."""
    trained_layers: Annotated[Many[Width], Field(min_length=1)] | None = None
    """Layers (1, 2, ...) whose weights learn; all if absent. Feedback learns in any case."""
    rule: dict[str, Any] = Field(default_factory=dict)
    """Settings of the update rule; see the rule's file."""

    @model_validator(mode="after")
    def _selection_is_possible(self) -> Self:
        if self.select != "last" and self.select_on == "validation" and self.validation_images == 0:
            raise ValueError(
                "validation_images is 0, but something is to be selected; hold images out, or say select: last"
            )
        if self.select == "last" and self.patience is not None:
            raise ValueError("patience needs a selection, which select: last does not make; leave patience out")
        if self.select_on == "test" and self.curve_images:
            raise ValueError(
                "curve_images are test images, which with select_on: test would choose the network; leave them out"
            )
        return self

    @model_validator(mode="after")
    def _adversary_fits(self) -> Self:
        if self.adversary is None and self._uses_adversary:
            raise ValueError(
                "select: adversarial, adversarial_training, curve_images and stability_images need an adversary;"
                " add adversary"
            )
        if not self._has_adversary:
            return self
        if (self.pixel_mean, self.pixel_deviation) != (0.0, 1.0):
            raise ValueError(
                "a population's adversary knows pixels in [0, 1] only; leave pixel_mean and pixel_deviation out"
            )
        return self

    @model_validator(mode="after")
    def _layers_fit(self) -> Self:
        if self.convolutions and (self.dropout or self.layer_angles or self._has_adversary):
            raise ValueError(
                "dropout, layer_angles and an adversary need fully connected layers; leave them or convolutions out"
            )
        n_layers = len(self.convolutions) + len(self.hidden) + 1
        if self.trained_layers is not None and not set(self.trained_layers) <= set(range(1, n_layers + 1)):
            raise ValueError(f"trained_layers must name some of the layers 1 to {n_layers}")
        for name in ("layer_rates", "layer_stabilities"):
            if (given := len(getattr(self.optimizer, name))) not in (0, n_layers):
                raise ValueError(f"optimizer.{name} has {given} entries for {n_layers} layers; give one for each layer")
        if self.layer_angles and not self.angle_images:
            raise ValueError("layer_angles needs angle_images; say how many")
        return self

    @model_validator(mode="after")
    def _feedback_has_an_optimizer(self) -> Self:
        if self.feedback_learning_rate is not None and self.feedback_optimizer is None:
            raise ValueError("feedback_learning_rate needs a feedback_optimizer; add it, such as {kind: sgd}")
        return self

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields keys of a selection, an adversary, a feedback optimiser and biases that are not there."""
        if self.select_on == "test":
            yield "validation_images", "with select_on: test"
        if self.select != "adversarial":
            yield "adversary_images", f"with select: {self.select}"
        if not self.adversarial_training:
            yield "training_adversary", "without adversarial_training"
            yield "rule.adversarial_presynaptic", "without adversarial_training"
        if not self._uses_adversary:
            yield (
                "adversary",
                "without select: adversarial, curve_images, stability_images and"
                " adversarial_training by this adversary",
            )
        if not self.layer_angles:
            yield "dampings", "without layer_angles"
        if not self.angle_images:
            yield "rule.modulation", "without angle_images"
        if not self.biases:
            yield "rule.last_hidden_bias", "with biases: false"
        for name in ("layer_rates", "layer_stabilities", "drop_epochs"):
            yield f"feedback_optimizer.{name}", "on feedback, which has no layers and keeps its rate"

    @property
    def _has_adversary(self) -> bool:
        return self.adversary is not None or self.training_adversary is not None

    @property
    def _uses_adversary(self) -> bool:
        trains = self.adversarial_training and self.training_adversary is None
        return trains or self.select == "adversarial" or self.curve_images > 0 or self.stability_images > 0

    @property
    def adversary_of_training(self) -> AdversarySettings | None:
        """What makes images to train on, or None without adversarial training."""
        return (self.training_adversary or self.adversary) if self.adversarial_training else None

    def measured_images(self, n_data: int, n_test: int) -> dict[str, int]:
        """Returns over how many images each number of a history is, for n_data training and n_test test images."""
        if self.select_on == "test":
            chosen_on, n_train = n_test, n_data
        else:
            chosen_on, n_train = self.validation_images, n_data - self.validation_images
        counts = {
            f"{self.select_on}_accuracy": chosen_on,
            f"{self.select_on}_adversarial_accuracy": min(self.adversary_images, chosen_on),
        }
        counts |= dict.fromkeys(("loss", "train_accuracy"), n_train)
        if self.curve_images:
            counts |= dict.fromkeys(("test_accuracy", "test_adversarial_accuracy"), min(self.curve_images, n_test))
        if self.stability_images:
            names = ("median_gap", "zero_gradients_float32", "zero_gradients_float64")
            counts |= dict.fromkeys(names, min(self.stability_images, n_test))
        if self.angle_images:
            counts["update_angle"] = min(self.angle_images, n_train)
        return counts
