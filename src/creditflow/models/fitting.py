"""Whether somebody's model takes the images of a dataset, and gives a number for each class."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError, one_line
from creditflow.data.prepared import Subset


def check_fits(model: nn.Module, data: Subset, name: str) -> None:
    """Runs a model on two images of a dataset, on the CPU.

    Raises UserError, which begins with `name`, if it cannot take the images, or gives something else than a number for
    each class.
    """
    images, _ = data.batch(torch.arange(min(2, len(data.labels))))
    check_outputs_of(model, images, len(data.class_names), name)


def check_outputs_of(model: nn.Module, images: Tensor, n_classes: int, name: str) -> None:
    """Runs a model on images (N, C, H, W), as `check_fits` does."""
    shape = _spelled(images.shape[1:])
    try:
        with torch.no_grad():
            outputs = model(images)
    except Exception as error:  # it is somebody's code
        raise UserError(
            f"{name} cannot take images {shape} in [0, 1] ({type(error).__name__}: {one_line(error)[:200]});"
            " give it images of its size (`input` of the experiment), or have its factory fit them"
        ) from error
    if not isinstance(outputs, Tensor):
        raise UserError(f"{name} gives {type(outputs).__name__}, not a tensor of logits; have its factory return these")
    if outputs.dim() != 2 or len(outputs) != len(images):
        raise UserError(
            f"{name} gives outputs {_spelled(outputs.shape)} for {len(images)} images {shape}, not (images, classes)"
        )
    if outputs.shape[1] != n_classes:
        raise UserError(
            f"{name} gives {outputs.shape[1]} numbers for each image, but the data has {n_classes} classes;"
            " give a model of these classes, or choose among them (`classes` of the dataset)"
        )


def _spelled(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
