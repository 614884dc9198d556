"""Settings of one training run: of pretraining, and of fine-tuning, which knows learning rules."""

from typing import Literal

from pydantic import Field

from creditflow.core.settings import SettingsModel


class TrainingSettings(SettingsModel):
    """Hyper-parameters of one training run."""

    epochs: int = Field(ge=1, le=1_000_000)
    """Number of passes over the training images."""
    batch_size: int = Field(ge=1, le=10_000_000)
    """Images per update. The last batch of an epoch may be smaller; it is used, too."""
    train_images: int | None = Field(None, ge=1, le=1_000_000_000)
    """Number of training images that are used, the same ones for every rule and seed; each class keeps its share. All
    images if absent."""
    learning_rate: float = Field(gt=0, le=100)
    """Adam's step size for all layers but the head."""
    head_learning_rate: float | None = Field(None, gt=0, le=100)
    """Adam's step size for the head; `learning_rate` if absent."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Factor of the L2 term that Adam adds to the gradient of every parameter."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Adam's averaging factor for the gradient."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Adam's averaging factor for the squared gradient."""
    flip: bool = False
    """Whether training images are mirrored left and right with probability 1/2."""
    pad: int = Field(0, ge=0, le=10_000)
    """Pixels by which training images are shifted at random, at most, each way, at their stored size; black outside."""
    batch_norm: Literal["batch", "frozen"] = "batch"
    """What batch normalisation does in training: `batch` normalises with the statistics of each batch and follows them
    for evaluation; `frozen` normalises with those of the start, which do not change. Its factors and offsets are
    trained in both."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward and backward pass; `bfloat16` is torch's autocast. Weights stay float32."""
    channels_last: bool = False
    """Whether images and convolutions lie in memory with the channels last."""
    compile: bool = False
    """Whether `torch.compile` fuses the operations of a pass."""
    angle_images: int = Field(0, ge=0, le=10_000_000)
    """Number of training images on which each epoch measures the angle between update and gradient; 0 for none."""


class FinetuningSettings(TrainingSettings):
    """Hyper-parameters of one fine-tuning."""

    epochs: int = Field(ge=0, le=1_000_000)
    """Number of passes over the training images. With 0, which only fine-tuning takes, the network stays as it starts,
    and an attacker's feedback weights are those with which training would begin."""
    scale: Literal["sigma", "norm"] = "sigma"
    """Of fine-tuning: how large the feedback weights V are that a rule draws. `sigma`: their standard deviation is
    sqrt(2 / (fan_in + fan_out)); `norm`: in each layer they have the norm of the forward weights at the start."""
    head: Literal["fresh", "kept"] = "fresh"
    """Of fine-tuning: whether the head is a new one, or that of a pretraining on the same images and classes."""


def scale_of(settings: TrainingSettings) -> Literal["sigma", "norm"]:
    """Returns the scale of the feedback weights. Pretraining has none, as its rule is backpropagation: "sigma"."""
    return settings.scale if isinstance(settings, FinetuningSettings) else "sigma"
