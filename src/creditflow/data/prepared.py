"""The canonical form of a dataset: one safetensors file, memory-mapped, read by every later stage."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as dump_arrays
from torch import Tensor

from creditflow import files
from creditflow.data.dataset import Split
from creditflow.errors import UserError, one_line


@dataclass(frozen=True)
class Subset:
    """Images and labels of one split, of chosen classes.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), renumbered 0, 1, ... in the order of `classes`.
        class_names: one per label.
        mean, std: per channel, in [0, 1] units, over the whole training split of the dataset.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device) -> "Subset":
        """Returns the same subset with its tensors on a device."""
        return Subset(self.images.to(device), self.labels.to(device), self.class_names, self.mean, self.std)


def save_prepared(path: Path, splits: Mapping[str, Split], class_names: Sequence[str]) -> None:
    """Writes the canonical form, atomically. Raises UserError if a split is inconsistent."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, (images, labels) in splits.items():
        if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
            raise UserError(
                f"split {name!r}: images must be uint8 (N, C, H, W), one label each, not {images.dtype} {images.shape}, {labels.shape}"
            )
        if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(class_names):
            raise UserError(f"split {name!r}: labels must lie in 0..{len(class_names) - 1}")
        arrays[f"{name}_images"] = np.ascontiguousarray(images)
        arrays[f"{name}_labels"] = np.ascontiguousarray(labels.astype(np.int64))
    mean, std = channel_statistics(splits["train"][0])
    facts = {"class_names": list(class_names), "mean": mean, "std": std}
    # One metadata entry: safetensors does not keep the order of several, and equal datasets should be equal files.
    files.write_atomically(path, dump_arrays(arrays, metadata={"creditflow": json.dumps(facts)}))


def channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation per channel of uint8 images (N, C, H, W), in [0, 1] units.

    A constant channel gets standard deviation 1, so that normalising it is defined.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        # Exact from the histogram: no float copy of the images is needed.
        share = np.bincount(images[:, channel].reshape(-1), minlength=256) / max(images[:, channel].size, 1)
        mean = float(share @ levels)
        std = float(np.sqrt(share @ (levels - mean) ** 2))
        means.append(mean)
        stds.append(std or 1.0)
    return means, stds


def load_prepared(path: Path, split: str, classes: Sequence[int] | None = None) -> Subset:
    """Reads one split, all of it or only some classes.

    Raises UserError if the file is not a prepared dataset, the split is not in it, or a class has no image.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["creditflow"])
            images, labels = file.get_tensor(f"{split}_images"), file.get_tensor(f"{split}_labels")
    except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        why = f"is not a prepared dataset with a {split!r} split ({one_line(error)})"
        raise UserError(f"{path} {why}; delete it and prepare it again") from error
    chosen = list(classes) if classes is not None else list(range(len(facts["class_names"])))
    images, labels = _select(images, labels, chosen, path)
    names = tuple(facts["class_names"][index] for index in chosen)
    return Subset(images, labels, names, tuple(facts["mean"]), tuple(facts["std"]))


def _select(images: Tensor, labels: Tensor, classes: list[int], path: Path) -> tuple[Tensor, Tensor]:
    counts = torch.bincount(labels, minlength=max([*classes, 0]) + 1)
    for index in classes:
        if counts[index] == 0:
            raise UserError(f"{path}: class {index} has no image; check `classes` in the experiment")
    renumbered = torch.full((len(counts),), -1)
    renumbered[classes] = torch.arange(len(classes))
    labels = renumbered[labels]
    keep = labels >= 0
    return images[keep], labels[keep]


def to_unit_interval(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255
