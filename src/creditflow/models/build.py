"""The model that every stage works on: normalisation, backbone and head, built from a small description."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a model again.

    Attributes:
        backbone: id of a file in `models/backbones`.
        image_shape: (channels, height, width) of the images, in pixels.
        n_classes: number of outputs of the head.
        mean, std: one number for each channel, for pixels in [0, 1].
        options: further arguments of the `build` function of the backbone; most backbones take none.
        inner_shape: (channels, height, width) that the model itself gives the images before its first layer; None for
            images that the backbone takes as they are.
    """

    backbone: str
    image_shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)
    inner_shape: tuple[int, int, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for a sidecar; without `options` and `inner_shape` where there are none."""
        optional = ("options", "inner_shape")
        return {key: value for key, value in asdict(self).items() if value or key not in optional}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelSpec":
        """Reads what `to_json` gave. Raises KeyError or TypeError for anything else."""
        return cls(
            backbone=str(values["backbone"]),
            image_shape=_shape(values["image_shape"]),
            n_classes=int(values["n_classes"]),
            mean=tuple(map(float, values["mean"])),
            std=tuple(map(float, values["std"])),
            options=dict(values.get("options", {})),
            inner_shape=_shape(values["inner_shape"]) if "inner_shape" in values else None,
        )


def _shape(values: Any) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


class Enlarge(nn.Module):
    """Brings images to a larger size, bilinearly, and repeats a grey channel.

    It is a part of the model. So attacks change the images as people see them, before they are enlarged, and gradients
    go through it exactly, as it is linear.
    """

    def __init__(self, image_shape: tuple[int, int, int], shape: tuple[int, int, int]) -> None:
        """Raises UserError if the images have several channels, but other ones, or are larger than `shape`."""
        super().__init__()
        if image_shape[0] not in (1, shape[0]):
            raise UserError(
                f"input.channels: {shape[0]}, but the images have {image_shape[0]} channels; leave input.channels out"
            )
        if image_shape[1] > shape[1] or image_shape[2] > shape[2]:
            size, original = (f"{height}x{width}" for _, height, width in (shape, image_shape))
            raise UserError(
                f"input.upsample: {size} is smaller than the images of {original}; give a larger upsample, or make the"
                " images smaller with input.size"
            )
        self.shape = shape

    def forward(self, images: Tensor) -> Tensor:
        channels, height, width = self.shape
        if images.shape[1] != channels:
            images = images.expand(-1, channels, -1, -1)
        return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)


class Normalize(nn.Module):
    """(x - mean) / std per channel, inside the model, so that attacks work on pixels in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class ImageClassifier(nn.Module):
    """Enlarge (if asked for), normalize, backbone, head: images (N, C, H, W) in [0, 1] to logits (N, n_classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        shape = spec.inner_shape or spec.image_shape
        self.enlarge = Enlarge(spec.image_shape, spec.inner_shape) if spec.inner_shape else None
        self.normalize = Normalize(spec.mean, spec.std)
        self.backbone, n_features = plugins.load("backbone", spec.backbone).build(shape, **spec.options)
        self.head = nn.Linear(n_features, spec.n_classes)

    def forward(self, images: Tensor) -> Tensor:
        if self.enlarge is not None:
            images = self.enlarge(images)
        logits: Tensor = self.head(self.backbone(self.normalize(images)))
        return logits


def body_parameters(model: ImageClassifier) -> list[nn.Parameter]:
    """Returns all parameters of a model but those of its head, in the order of `model.parameters()`."""
    head_ids = {id(parameter) for parameter in model.head.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in head_ids]


def build_model(spec: ModelSpec, *seed_names: str | int) -> ImageClassifier:
    """Builds a model with PyTorch's default initialisation, drawn from the generator of these names.

    Raises UserError for an unknown backbone, an image size that it does not take, or an `inner_shape` to which images
    cannot be enlarged.
    """
    with randomness.global_seed("initialise", *seed_names):
        return ImageClassifier(spec)


def replace_head(
    model: ImageClassifier, n_classes: int, *seed_names: str | int, enlarges: tuple[int, int, int] | None = None
) -> ImageClassifier:
    """Returns a model with the same backbone weights and a fresh head for another number of classes.

    Args:
        model: the model with the weights.
        n_classes: the number of classes.
        seed_names: names of the generator that the fresh head is drawn from.
        enlarges: (channels, height, width) of smaller images that the new model enlarges to those that `model` takes;
            None for a model that takes the same images.

    Raises UserError if images of `enlarges` cannot be enlarged so.
    """
    spec = replace(model.spec, n_classes=n_classes)
    if enlarges is not None:
        spec = replace(spec, image_shape=enlarges, inner_shape=spec.inner_shape or spec.image_shape)
    fresh = build_model(spec, *seed_names)
    fresh.backbone.load_state_dict(model.backbone.state_dict())
    return fresh
