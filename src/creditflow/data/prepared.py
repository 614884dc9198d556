"""The canonical form of a dataset: one safetensors file, memory-mapped, read by every later stage.

Small datasets are in it as bytes; of large ones it holds the names of the image files, which stay where they are.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as dump_arrays
from torch import Tensor

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import ImageFiles, Split
from creditflow.data.inputs import Augmentation, Decoder, InputSettings, augment, to_input, to_unit_interval

#: Pixels per channel of a batch that only looks: 1,000 images of 28x28, a hundred and more of 224x224.
_PIXELS = 1 << 23

#: Bytes of images up to which a dataset lives on the device; larger ones are sent batch by batch.
_RESIDENT = 4 << 30
#: Training images that mean and standard deviation are taken from where images are files.
_SAMPLE = 1000


@dataclass(frozen=True)
class Subset:
    """Images and labels of one split, of chosen classes.

    Attributes:
        images: uint8 (N, C, H, W), or files.
        labels: int64 (N,), renumbered 0, 1, ... in the order of `classes`; or uint8 zeros and ones (N, K).
        class_names: one per label.
        mean, std: per channel, in [0, 1] units, over the whole training split of the dataset (a sample of it for files).
        inputs: what `batch` makes of the images.
        device: where `batch` gives them.
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
        """(channels, height, width) of what `batch` gives."""
        if isinstance(self.images, ImageFiles):
            channels, height, width = 3, 0, 0
        else:
            _, channels, height, width = self.images.shape
        size = self.inputs.size
        return self.inputs.channels or channels, size or height, size or width

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels."""
        return self.labels.dim() == 2

    def to(self, device: torch.device) -> "Subset":
        """Returns the same subset for a device; images move there unless they are files or too many."""
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
        """Yields `batch` for each part; files of the next part are decoded while the present one is used."""
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
        _, height, width = self.image_shape
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
        # Files were brought to size where they were decoded.
        x = to_unit_interval(images) if isinstance(self.images, ImageFiles) else to_input(images, self.inputs)
        return x, self.labels[chosen.to(self.labels.device)]


def save_prepared(
    path: Path,
    splits: Mapping[str, Split],
    class_names: Sequence[str],
    unreadable: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes the canonical form, atomically; `unreadable` are image files that were left out, by split, for the record.

    Raises UserError as `check_splits` does, or if an image file of the sample for mean and standard deviation cannot be read.
    """
    check_splits(splits, class_names)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, (images, labels) in splits.items():
        if isinstance(images, ImageFiles):
            arrays[f"{name}_names"] = np.frombuffer("\n".join(images.names).encode(), dtype=np.uint8)
        else:
            arrays[f"{name}_images"] = np.ascontiguousarray(images)
        arrays[f"{name}_labels"] = np.ascontiguousarray(
            labels.astype(np.int64 if labels.ndim == 1 else np.uint8, copy=False)
        )
    mean, std = channel_statistics(_sample(splits["train"][0]))
    facts: dict[str, Any] = {"class_names": list(class_names), "mean": mean, "std": std}
    if folders := {images.folder.resolve() for images, _ in splits.values() if isinstance(images, ImageFiles)}:
        facts["folder"] = str(*folders)
        facts["unreadable"] = {name: list(names) for name, names in (unreadable or {}).items()}
    facts["sha256"] = {name: files.sha256(array.data) for name, array in arrays.items()}
    # One metadata entry: safetensors does not keep the order of several, and equal datasets should be equal files.
    files.write_atomically(path, dump_arrays(arrays, metadata={"creditflow": json.dumps(files.seal(facts))}))


def check_splits(splits: Mapping[str, Split], class_names: Sequence[str]) -> None:
    """Raises UserError if a split is inconsistent: shapes, lengths, labels, names of files, or kinds of its own."""
    for name, (images, labels) in splits.items():
        where = f"split {name!r}"
        if isinstance(images, ImageFiles):
            _check_names(where, images.names)
        elif images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"{where}: images must be uint8 (N, C, H, W), not {images.dtype} {images.shape}")
        if len(images) == 0 or labels.shape[:1] != (len(images),):
            raise UserError(
                f"{where}: {len(images)} images, but labels of shape {labels.shape}; it must have images, and labels for each"
            )
        _check_labels(where, labels, len(class_names))
    kinds = {
        (images.folder if isinstance(images, ImageFiles) else None, labels.ndim) for images, labels in splits.values()
    }
    if len(kinds) != 1 or "train" not in splits:
        raise UserError(
            f"splits {', '.join(splits)}: all must be alike in the kind of images, their folder and the kind of labels, one is 'train'"
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
    if not (some := labels.any(1)).all():
        raise UserError(f"{where}: image {int(some.argmin())} has no label; leave such images out")


def _sample(images: NDArray[np.uint8] | ImageFiles) -> NDArray[np.uint8]:
    """Returns all images, or of files up to 1,000 drawn at random, at the size of the usual backbones: (n, 3, 224, 224)."""
    if not isinstance(images, ImageFiles):
        return images
    chosen = np.sort(np.random.default_rng(0).permutation(len(images))[:_SAMPLE])
    return Decoder(images, InputSettings(size=224))(torch.from_numpy(chosen)).numpy()


def channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation per channel of uint8 images (N, C, H, W), in [0, 1] units.

    A constant channel gets standard deviation 1, so that normalising it is defined.
    """
    levels = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[1]):
        # Exact from the histogram: no float copy of the images is needed, and `bincount` makes a wide one only of a block.
        counts = sum(np.bincount(block[:, channel].reshape(-1), minlength=256) for block in _blocks(images))
        share = counts / max(images[:, channel].size, 1)
        mean = float(share @ levels)
        std = float(np.sqrt(share @ (levels - mean) ** 2))
        means.append(mean)
        stds.append(std or 1.0)
    return means, stds


def _blocks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (images[start : start + 1000] for start in range(0, max(len(images), 1), 1000))


def load_prepared(
    path: Path, split: str, classes: Sequence[int] | None = None, inputs: InputSettings | None = None
) -> Subset:
    """Reads one split, all of it or only some classes.

    Raises UserError if the file is not a prepared dataset, the split is not in it, a chosen class has no image, or `inputs` do
    not fit the images.
    """
    inputs = inputs or InputSettings()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["creditflow"])
            stored = {name: file.get_tensor(name) for name in file.keys() if name.startswith(f"{split}_")}  # noqa: SIM118 - no mapping
            if not files.is_whole(facts) or any(
                files.sha256(one.numpy().data) != facts["sha256"][name] for name, one in stored.items()
            ):
                raise ValueError("its content is not what was written")
            images, labels = _stored_images(stored, split, facts), stored[f"{split}_labels"]
    except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        why = f"is not a prepared dataset with a {split!r} split ({one_line(error)})"
        raise UserError(f"{path} {why}; delete it and prepare it again") from error
    if isinstance(images, ImageFiles) and inputs.size is None:
        raise UserError(f"{path}: its images are files of many sizes; give the experiment an `input.size`")
    names = tuple(facts["class_names"])
    if classes is not None:
        images, labels = _select(images, labels, list(classes), path)
        names = tuple(names[index] for index in classes)
    subset = Subset(images, labels, names, tuple(facts["mean"]), tuple(facts["std"]), inputs)
    n_channels = subset.image_shape[0]
    if len(subset.mean) != n_channels:  # a grey image repeated, or files read as grey ones
        spread = [sum(values) / len(values) for values in (subset.mean, subset.std)]
        subset = dataclasses.replace(subset, mean=(spread[0],) * n_channels, std=(spread[1],) * n_channels)
    return subset


def _stored_images(stored: Mapping[str, Tensor], split: str, facts: dict[str, Any]) -> Tensor | ImageFiles:
    if f"{split}_names" not in stored:
        return stored[f"{split}_images"]
    names = bytes(stored[f"{split}_names"].numpy()).decode()
    return ImageFiles(Path(facts["folder"]), names.split("\n"))


def _select(
    images: Tensor | ImageFiles, labels: Tensor, classes: list[int], path: Path
) -> tuple[Tensor | ImageFiles, Tensor]:
    if len(set(classes)) < len(classes):
        raise UserError(f"classes {' '.join(map(str, classes))} name one twice; name each once")
    multi_label = labels.dim() == 2
    counts = (
        labels.sum(0, dtype=torch.int64) if multi_label else torch.bincount(labels, minlength=max([*classes, 0]) + 1)
    )
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
        return images, labels  # memory-mapped still
    if isinstance(images, ImageFiles):
        return ImageFiles(images.folder, [images.names[index] for index in keep.nonzero().flatten().tolist()]), labels[
            keep
        ]
    return images[keep], labels[keep]
