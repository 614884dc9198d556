"""The canonical form of a dataset: one safetensors file, which every later stage reads, memory-mapped.

The images of a small dataset are in it as bytes. Of a large one it holds the names of the image files, which stay where
they are.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as dump_arrays
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles, Split
from creditflow.data.inputs import Decoder, augment, to_input, to_unit_interval
from creditflow.data.sealed import check_tensors, facts_of, reading
from creditflow.data.settings import Augmentation, InputSettings
from creditflow.data.splits import channel_statistics, check_splits, check_stored

#: What messages advise where a file is damaged.
_AGAIN = "prepare it again"
#: Pixels per channel of a batch that is only measured: 1,000 images of 28x28, or more than a hundred of 224x224.
_PIXELS = 1 << 23
#: Bytes of images up to which a dataset lies on the device as a whole; a larger one is sent there batch by batch.
_RESIDENT = 4 << 30
#: Number of training images from which mean and standard deviation are computed where images are files.
_SAMPLE = 1000


@dataclass(frozen=True)
class Subset:
    """Images and labels of one split, of chosen classes.

    Attributes:
        images: uint8 (N, C, H, W), or files.
        labels: int64 (N,), renumbered 0, 1, ... in the order of the chosen classes; or uint8 zeros and ones (N, K).
        class_names: one name for each label.
        mean, std: per channel, in [0, 1] units, over the whole training split of the dataset (for files over a sample
            of it).
        inputs: what a network sees of the images.
        device: the device on which `batch` returns them.
    """

    images: Tensor | ImageFiles
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    inputs: InputSettings = field(default_factory=InputSettings)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images that `batch` returns."""
        if isinstance(self.images, ImageFiles):
            channels, height, width = 3, 0, 0
        else:
            _, channels, height, width = self.images.shape
        size = self.inputs.size
        if self.inputs.upsample is None or isinstance(self.images, ImageFiles):
            channels = self.inputs.channels or channels
        return channels, size or height, size or width

    @property
    def inner_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) to which a network enlarges the images itself; None if it takes them as given."""
        side = self.inputs.upsample
        return None if side is None else (self.inputs.channels or self.image_shape[0], side, side)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.dim() == 2

    def to(self, device: torch.device) -> "Subset":
        """Returns the same subset for a device. Images move there unless they are files or too many."""
        images = self.images
        if isinstance(images, Tensor) and images.numel() <= _RESIDENT:
            images = images.to(device)
        return dataclasses.replace(self, images=images, labels=self.labels.to(device), device=device)

    def batch(
        self, chosen: Tensor, change: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns images float32 (n, C, H, W) in [0, 1] and their labels, on the device, for indices (n,)."""
        return self._finish(self._stored(chosen), chosen, change, generator)

    def batches(
        self, parts: Sequence[Tensor], change: Augmentation | None = None, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields `batch` for each part of the indices. Files of the next part are decoded while a part is in use."""
        if isinstance(self.images, Tensor):
            yield from (self.batch(part, change, generator) for part in parts)
            return
        with ThreadPoolExecutor(1) as ahead:
            waiting = [ahead.submit(self._stored, part) for part in parts[:1]]
            for part, following in zip_longest(parts, parts[1:]):
                stored = waiting.pop().result()
                if following is not None:
                    waiting.append(ahead.submit(self._stored, following))
                yield self._finish(stored, part, change, generator)

    def in_order(self) -> list[Tensor]:
        """Returns all indices in order, in parts whose activations fit into memory."""
        _, height, width = self.inner_shape or self.image_shape
        return list(torch.arange(len(self.labels)).split(max(1, min(1000, _PIXELS // (height * width)))))

    @cached_property
    def _decoder(self) -> Decoder:
        assert isinstance(self.images, ImageFiles)
        return Decoder(self.images, self.inputs)

    def _stored(self, chosen: Tensor) -> Tensor:
        if isinstance(self.images, ImageFiles):
            return self._decoder(chosen)
        return self.images[chosen.to(self.images.device)]

    def _finish(
        self, stored: Tensor, chosen: Tensor, change: Augmentation | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        images = stored.to(self.device)
        if change:
            assert generator is not None
            images = augment(images, change, generator)
        # Images from files have got their size when they were decoded.
        x = to_unit_interval(images) if isinstance(self.images, ImageFiles) else to_input(images, self.inputs)
        return x, self.labels[chosen.to(self.labels.device)]


def save_prepared(
    path: Path,
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    unreadable: Mapping[str, Sequence[str]] | None = None,
    dataset: str | None = None,
) -> None:
    """Writes the canonical form, atomically.

    Args:
        path: the file.
        splits: images and labels by the name of the split.
        class_names: names in the order of the labels.
        unreadable: for each split of files the names of those that were left out; they are kept for the record.
        dataset: id of the dataset, which the file then states; None if it has none.

    Raises UserError as `check_splits` does, or if a file of the sample for mean and standard deviation cannot be read.
    """
    check_splits(splits, class_names)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, (images, labels) in splits.items():
        arrays |= _stored_arrays(name, images, labels)
    mean, std = channel_statistics(_sample(splits["train"][0]))
    facts: dict[str, Any] = {"class_names": list(class_names), "mean": mean, "std": std}
    if folders := {images.folder.resolve() for images, _ in splits.values() if isinstance(images, ImageFiles)}:
        facts["folder"] = str(*folders)
    if folders or unreadable:
        facts["unreadable"] = {name: list(names) for name, names in (unreadable or {}).items()}
    if dataset is not None:
        facts["identity"] = {"dataset": dataset}
    facts["sha256"] = {name: files.sha256(array.data) for name, array in arrays.items()}
    # All facts are in one entry: safetensors does not keep the order of several, and equal datasets must give equal
    # files.
    files.write_atomically(path, dump_arrays(arrays, metadata={"creditflow": json.dumps(files.seal(facts))}))


def _stored_arrays(
    split: str, images: NDArray[np.uint8] | ImageFiles, labels: NDArray[np.int64] | NDArray[np.uint8]
) -> dict[str, NDArray[np.generic]]:
    stored_labels = np.ascontiguousarray(labels.astype(np.int64 if labels.ndim == 1 else np.uint8, copy=False))
    if isinstance(images, ImageFiles):
        names = np.frombuffer("\n".join(images.names).encode(), dtype=np.uint8)
        return {f"{split}_names": names, f"{split}_labels": stored_labels}
    return {f"{split}_images": np.ascontiguousarray(images), f"{split}_labels": stored_labels}


def _sample(images: NDArray[np.uint8] | ImageFiles) -> NDArray[np.uint8]:
    """Returns all images; of files, up to 1,000 that are drawn at random, as (n, 3, 224, 224)."""
    if not isinstance(images, ImageFiles):
        return images
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:_SAMPLE])
    return Decoder(images, InputSettings(size=224))(torch.from_numpy(chosen)).numpy()


def load_prepared(
    path: Path, split: str, classes: Sequence[int] | None = None, inputs: InputSettings | None = None
) -> Subset:
    """Reads one split: all of it, or only some classes.

    Args:
        path: a file that `save_prepared` wrote.
        split: "train", "test" or, where a dataset has it, "database".
        classes: labels of the classes that are kept, which become 0, 1, ... in this order; all if None.
        inputs: what a network sees of the images; images as they are if None.

    Raises UserError if the file is not a prepared dataset, the split is not in it, a chosen class has no image, or
    `inputs` do not fit the images.
    """
    inputs = inputs or InputSettings()
    images, labels, facts = _read(path, split)
    if isinstance(images, ImageFiles) and inputs.size is None:
        raise UserError(f"{path}: its images are files of many sizes; give the experiment an `input.size`")
    names = tuple(facts["class_names"])
    if classes is not None:
        images, labels = _select(images, labels, list(classes), path)
        names = tuple(names[index] for index in classes)
    subset = Subset(images, labels, names, tuple(facts["mean"]), tuple(facts["std"]), inputs)
    n_channels = subset.image_shape[0]
    if len(subset.mean) != n_channels:  # a grey image repeated, or files that are read as grey images
        mean, std = (sum(values) / len(values) for values in (subset.mean, subset.std))
        subset = dataclasses.replace(subset, mean=(mean,) * n_channels, std=(std,) * n_channels)
    return subset


def read_facts(path: Path) -> dict[str, Any]:
    """Returns the facts beside the arrays: `class_names`, `mean`, `std`, `sha256` of each array, and `identity`.

    Raises UserError if the file is not a prepared dataset, or if its facts are not what was written.
    """
    with reading(path, "is not a prepared dataset", _AGAIN), safetensors.safe_open(path, framework="pt") as file:
        return facts_of(file)


def _read(path: Path, split: str) -> tuple[Tensor | ImageFiles, Tensor, dict[str, Any]]:
    """Returns images, labels and the facts beside them, after a check that they are what was written."""
    with reading(path, f"is not a prepared dataset with a {split!r} split", _AGAIN):
        with safetensors.safe_open(path, framework="pt") as file:
            facts = facts_of(file)
            stored = {name: file.get_tensor(name) for name in file.keys() if name.startswith(f"{split}_")}  # noqa: SIM118 - no mapping
        check_tensors(stored, facts)
        images, labels = _stored_images(stored, split, facts), stored[f"{split}_labels"]
        check_stored(images if isinstance(images, ImageFiles) else images.numpy(), labels.numpy(), facts)
    return images, labels, facts


def _stored_images(stored: Mapping[str, Tensor], split: str, facts: dict[str, Any]) -> Tensor | ImageFiles:
    if f"{split}_names" not in stored:
        return stored[f"{split}_images"]
    names = bytes(stored[f"{split}_names"].numpy()).decode()
    return ImageFiles(Path(facts["folder"]), names.split("\n"))


def _select(
    images: Tensor | ImageFiles, labels: Tensor, classes: list[int], path: Path
) -> tuple[Tensor | ImageFiles, Tensor]:
    """Returns the images of the chosen classes, and their labels, renumbered in the order of the choice."""
    if len(set(classes)) < len(classes):
        raise UserError(f"classes {' '.join(map(str, classes))} name a class twice; name each once")
    multi_label = labels.dim() == 2
    counts = labels.sum(0, dtype=torch.int64) if multi_label else labels.bincount(minlength=max([*classes, 0]) + 1)
    for index in classes:
        if index >= len(counts) or counts[index] == 0:
            raise UserError(f"{path}: class {index} has no image; check `classes` in the experiment")
    if multi_label:
        labels = labels[:, classes]
        keep = labels.any(1)
    else:
        renumbered = torch.full((len(counts),), -1)
        renumbered[classes] = torch.arange(len(classes))
        labels = renumbered[labels]
        keep = labels >= 0
    if bool(keep.all()):
        return images, labels  # still memory-mapped
    if isinstance(images, ImageFiles):
        names = [images.names[index] for index in keep.nonzero().flatten().tolist()]
        return ImageFiles(images.folder, names), labels[keep]
    return images[keep], labels[keep]
