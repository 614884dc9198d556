"""Settings of one training run."""

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
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the forward and backward pass; `bfloat16` is torch's autocast. Weights stay float32."""
    channels_last: bool = False
    """Whether images and convolutions lie in memory with the channels last."""
    compile: bool = False
    """Whether `torch.compile` fuses the operations of a pass."""
    angle_images: int = Field(0, ge=0, le=10_000_000)
    """Number of training images on which each epoch measures the angle between update and gradient; 0 for none."""
