"""What must hold for the splits of every dataset, and the mean and standard deviation of their images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles, Split
from creditflow.data.image_files import MAX_PIXELS, MAX_RATIO

#: Pixels that are counted at once.
_BLOCK = 1 << 16


def check_splits(splits: Mapping[str, Split], class_names: Sequence[str]) -> None:
    """Checks the splits of a dataset: shapes, lengths, labels and names of files, and that all splits are of one kind.

    Raises UserError for the first mistake; the message names the split.
    """
    for name, (images, labels) in splits.items():
        if isinstance(images, ImageFiles):
            _check_names(f"split {name!r}", images.names)
        check_arrays(f"split {name!r}", images, labels, len(class_names))
    _check_alike(splits)


def check_arrays(where: str, images: NDArray[np.uint8] | ImageFiles, labels: NDArray[Any], n_classes: int) -> None:
    """Checks what can be seen of a split's arrays in a moment: kind and shape of the images, and all labels.

    Raises UserError, which begins with `where`, for the first mistake.
    """
    if not isinstance(images, ImageFiles):
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"{where}: images must be uint8 (N, C, H, W), not {images.dtype} {images.shape}")
        _check_shape(where, images.shape)
    if len(images) == 0 or labels.shape[:1] != (len(images),):
        raise UserError(
            f"{where}: {len(images)} images, but labels of shape {labels.shape}; a split must have"
            " images, and a label for each"
        )
    _check_labels(where, labels, n_classes)


def check_stored(images: NDArray[np.uint8] | ImageFiles, labels: NDArray[Any], facts: Mapping[str, Any]) -> None:
    """Raises ValueError for what no dataset is, such as float images or labels of no class, although its seal fits."""
    try:
        check_arrays("its content", images, labels, len(facts["class_names"]))
    except UserError as error:
        raise ValueError(str(error)) from error
    n_channels = 3 if isinstance(images, ImageFiles) else images.shape[1]
    mean, std = facts["mean"], facts["std"]
    if len(mean) != n_channels or len(std) != n_channels:
        raise ValueError(f"mean and standard deviation are not {n_channels} numbers each")
    if not all(type(value) is float and math.isfinite(value) for value in [*mean, *std]) or min(std) <= 0:
        raise ValueError("mean and standard deviation must be finite numbers, and each deviation above 0")


def _check_shape(where: str, shape: tuple[int, ...]) -> None:
    height, width = shape[2:]
    if 0 in shape[1:] or max(height, width) > MAX_RATIO * min(height, width) or height * width > MAX_PIXELS:
        raise UserError(
            f"{where}: images of {height}x{width} pixels and {shape[1]} channels; neither side may be 0 or more than"
            f" {MAX_RATIO} times the other, and at most {MAX_PIXELS:,} pixels are possible"
        )


def _check_names(where: str, names: Sequence[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\n" in name or not name.isprintable():
            raise UserError(
                f"{where}: {name!r} is not a file name below the dataset's folder that can be kept; rename it"
            )


def _check_labels(where: str, labels: NDArray[Any], n_classes: int) -> None:
    if labels.dtype.kind not in "iu":
        raise UserError(f"{where}: labels must be whole numbers, not {labels.dtype}")
    if labels.ndim == 1:
        if labels.min() < 0 or labels.max() >= n_classes:
            raise UserError(f"{where}: labels must lie in 0..{n_classes - 1}, not {labels.min()}..{labels.max()}")
        return
    if labels.ndim != 2 or labels.shape[1] != n_classes:
        raise UserError(
            f"{where}: labels must be (N,), or (N, {n_classes}) as there are {n_classes} classes, not {labels.shape}"
        )
    if labels.min() < 0 or labels.max() > 1:
        raise UserError(
            f"{where}: labels of images that may have several must be 0 or 1, not {labels.min()}..{labels.max()}"
        )
    if not (labelled := labels.any(1)).all():
        raise UserError(f"{where}: image {int(labelled.argmin())} has no label; leave such images out")


def _check_alike(splits: Mapping[str, Split]) -> None:
    kinds = {
        (images.folder if isinstance(images, ImageFiles) else images.shape[1:], labels.ndim)
        for images, labels in splits.values()
    }
    if len(kinds) != 1 or "train" not in splits:
        raise UserError(
            f"splits {', '.join(splits)}: all must be alike in the kind and shape of images, in their folder and in the"
            " kind of labels, and one must be 'train'"
        )


def channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation per channel of uint8 images (N, C, H, W), in [0, 1] units.

    A constant channel gets standard deviation 1, so that normalising it is defined.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        # A histogram is exact and needs no copy of all images as floats. `bincount` makes a copy that is eight times as
        # wide, so it gets blocks whose copy stays in the processor's cache.
        counts = sum(np.bincount(block[:, channel].reshape(-1), minlength=256) for block in _blocks(images))
        share = counts / max(images[:, channel].size, 1)
        mean = float(share @ levels)
        std = float(np.sqrt(share @ (levels - mean) ** 2))
        means.append(mean)
        stds.append(std or 1.0)
    return means, stds


def _blocks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    n = max(1, _BLOCK // max(math.prod(images.shape[2:]), 1))
    return (images[start : start + n] for start in range(0, max(len(images), 1), n))
