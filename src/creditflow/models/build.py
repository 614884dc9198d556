"""The model that every stage works on: normalisation, backbone and head, built from a small description."""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.core import plugins


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed to build a model again.

    Attributes:
        backbone: id of a file in `models/backbones`.
        image_shape: (channels, height, width) of the images, in pixels.
        n_classes: number of outputs of the head.
        mean, std: one number for each channel, for pixels in [0, 1].
        options: further arguments of the `build` function of the backbone; most backbones take none.
    """

    backbone: str
    image_shape: tuple[int, int, int]
    n_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for a sidecar."""
        values = asdict(self)
        return values if self.options else {key: value for key, value in values.items() if key != "options"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "ModelSpec":
        """Reads what `to_json` gave. Raises KeyError or TypeError for anything else."""
        return cls(
            backbone=str(values["backbone"]),
            image_shape=(int(values["image_shape"][0]), int(values["image_shape"][1]), int(values["image_shape"][2])),
            n_classes=int(values["n_classes"]),
            mean=tuple(map(float, values["mean"])),
            std=tuple(map(float, values["std"])),
            options=dict(values.get("options", {})),
        )


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
    """Normalize, backbone, head: images (N, C, H, W) in [0, 1] to logits (N, n_classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalize = Normalize(spec.mean, spec.std)
        self.backbone, n_features = plugins.load("backbone", spec.backbone).build(spec.image_shape, **spec.options)
        self.head = nn.Linear(n_features, spec.n_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(self.normalize(images)))
        return logits


def body_parameters(model: ImageClassifier) -> list[nn.Parameter]:
    """Returns all parameters of a model but those of its head, in the order of `model.parameters()`."""
    head_ids = {id(parameter) for parameter in model.head.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in head_ids]


def build_model(spec: ModelSpec, *seed_names: str | int) -> ImageClassifier:
    """Builds a model with PyTorch's default initialisation, drawn from the generator of these names.

    Raises UserError for an unknown backbone or an image size that it does not take.
    """
    with randomness.global_seed("initialise", *seed_names):
        return ImageClassifier(spec)


def replace_head(model: ImageClassifier, n_classes: int, *seed_names: str | int) -> ImageClassifier:
    """Returns a model with the same backbone weights and a fresh head for another number of classes."""
    values = model.spec.to_json() | {"n_classes": n_classes}
    fresh = build_model(ModelSpec.from_json(values), *seed_names)
    fresh.backbone.load_state_dict(model.backbone.state_dict())
    return fresh
