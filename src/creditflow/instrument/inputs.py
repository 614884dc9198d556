"""The images of an audit: tensors, a Dataset or a DataLoader become images in [0, 1] and labels, or one clear line."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from creditflow.attacks.epsilons import check_epsilons
from creditflow.core.errors import UserError, one_line
from creditflow.core.files import sha256, warn

#: The range of pixels, lowest and highest.
Bounds = tuple[float, float]

#: How far a pixel may lie outside the range, as a share of it: resizing and float16 round.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Inputs:
    """What is attacked.

    Attributes:
        images: float32 (N, C, H, W) in [0, 1], on the CPU.
        labels: int64 (N,), on the CPU.
    """

    images: Tensor
    labels: Tensor

    def identity(self) -> dict[str, str]:
        """Returns the SHA-256 of the images and of the labels."""
        return {"images": tensor_sha256(self.images), "labels": tensor_sha256(self.labels)}


def tensor_sha256(tensor: Tensor) -> str:
    """Returns the SHA-256 of a tensor's values; its shape and type count, its device and layout do not."""
    plain = tensor.detach().cpu().contiguous()
    head = f"{plain.dtype} {tuple(plain.shape)} ".encode()
    return sha256(head + plain.reshape(-1).view(torch.uint8).numpy().tobytes())


def read_inputs(images: Any, labels: Any, bounds: Bounds) -> Inputs:
    """Returns images and labels as attacks need them.

    Args:
        images: float tensor or array (N, C, H, W) within `bounds`; or a Dataset or a DataLoader of pairs.
        labels: class numbers (N,); None for a Dataset or a DataLoader.
        bounds: lowest and highest value that a pixel can have.

    Raises:
        UserError: for anything that is not what it should be.
    """
    if isinstance(images, Dataset | DataLoader):
        if isinstance(getattr(images, "sampler", None), RandomSampler):
            warn("the DataLoader shuffles: a stopped audit cannot go on with other images; give shuffle=False")
        if labels is not None:
            raise UserError("a Dataset or a DataLoader brings its own labels: leave labels out")
        pixels, classes = _collected(images)
    elif labels is None:
        raise UserError("labels are missing: give the class number of each image, or a Dataset or a DataLoader")
    else:
        pixels, classes = _tensor(images, "images"), _tensor(labels, "labels")
    _check_images(pixels, bounds)
    _check_labels(classes, len(pixels))
    low, high = bounds
    unit = (pixels.double() - low) / (high - low) if bounds != (0.0, 1.0) else pixels
    return Inputs(unit.float().clamp(0, 1).contiguous(), classes.long())


def check_bounds(bounds: Any) -> Bounds:
    """Returns the range of pixels. Raises UserError if it is none."""
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise UserError(f"bounds must be the lowest and the highest value of a pixel, not {bounds!r}") from None
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise UserError(f"bounds must be a lower and a higher number, such as (0, 1) or (0, 255), not {bounds!r}")
    return low, high


def check_sizes(epsilons: Sequence[float], bounds: Bounds) -> list[float]:
    """Returns the epsilons. Raises UserError unless they rise, and are no larger than the range of pixels."""
    if isinstance(epsilons, int | float):
        raise UserError(f"epsilons must be a list, such as [{epsilons:g}]")
    try:
        sizes = [float(epsilon) for epsilon in epsilons]
    except (TypeError, ValueError):
        raise UserError(f"epsilons must be a list of numbers, such as [2/255, 8/255], not {epsilons!r}") from None
    check_epsilons(sizes)
    low, high = bounds
    if sizes[-1] > high - low:
        advice = "; say 8/255 for a perturbation of 8 grey levels" if bounds == (0.0, 1.0) else ""
        raise UserError(f"epsilon {sizes[-1]:g} is larger than the range of pixels, {low:g} to {high:g}{advice}")
    return sizes


def _collected(source: Dataset[Any] | DataLoader[Any]) -> tuple[Tensor, Tensor]:
    batched = isinstance(source, DataLoader) and source.batch_size is not None
    pixels, classes = [], []
    for item in _items(source):
        if not isinstance(item, list | tuple) or len(item) < 2:  # (image, label)
            kind = type(source).__name__
            raise UserError(f"each item of the {kind} must be a pair of image and label, not {_named(item)}")
        image, label = _tensor(item[0], "an image of the dataset"), _tensor(item[1], "a label of the dataset")
        pixels.append(image if batched else image[None])
        classes.append(label.reshape(-1) if not batched else label)
    if not pixels:
        raise UserError("the dataset is empty: there is no image to attack")
    shapes = sorted({tuple(part.shape[1:]) for part in pixels})
    if len(shapes) > 1:
        raise UserError(f"images have several shapes, such as {shapes[0]} and {shapes[1]}: resize them to one")
    return torch.cat(pixels), torch.cat(classes)


def _items(source: Dataset[Any] | DataLoader[Any]) -> Iterable[Any]:
    if isinstance(source, DataLoader | IterableDataset):
        return source
    return (source[index] for index in range(len(source)))  # type: ignore[arg-type]


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        return torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        advice = "; add torchvision.transforms.ToTensor()" if "image" in what else ""
        raise UserError(f"{what} must be a tensor, not {_named(value)} ({one_line(error)}){advice}") from None


def _check_images(pixels: Tensor, bounds: Bounds) -> None:
    if len(pixels) == 0:
        raise UserError("there is no image to attack: give at least one")
    if pixels.dim() != 4:
        raise UserError(f"images must have the shape (N, C, H, W), not {tuple(pixels.shape)}; add what is missing")
    low, high = bounds
    if not pixels.is_floating_point() and bounds == (0.0, 1.0):
        kind = str(pixels.dtype).removeprefix("torch.")
        raise UserError(f"images are {kind}, but pixels lie in 0 to 1: give images / 255, or say bounds=(0, 255)")
    if not bool(pixels.isfinite().all()):
        raise UserError("images have values that are NaN or infinite: mend or remove these images")
    least, most = float(pixels.min()), float(pixels.max())
    slack = _ROUNDING * (high - low)
    if least < low - slack or most > high + slack:
        advice = "give images before they are normalised, and say bounds=(low, high) and preprocessing={'mean', 'std'}"
        raise UserError(f"pixels from {least:g} to {most:g} lie outside the bounds, {low:g} to {high:g}: {advice}")


def _check_labels(classes: Tensor, n_images: int) -> None:
    if classes.dim() != 1 or len(classes) != n_images:
        shape = tuple(classes.shape)
        raise UserError(f"labels must be one class number for each of {n_images} images, not of the shape {shape}")
    if classes.is_floating_point() or classes.dtype in (torch.bool, torch.complex64, torch.complex128):
        raise UserError(f"labels must be whole numbers, not {str(classes.dtype).removeprefix('torch.')}")
    if int(classes.min()) < 0:
        raise UserError(f"label {int(classes.min())} is below 0: classes are numbered from 0")


def _named(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
