"""ImageNet-100 of the hashing literature (Cao et al., 2017): 100 classes, 13,000 (130 of each class) + 5,000
photographs.

Training images come from ILSVRC 2012's training images, and test images from its validation images; lists say which.
For retrieval, database.txt lists the images that are searched: more training images of these classes.
"""

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, ImageFiles, Split
from creditflow.data.formats.lists import check_disjoint, lists_in, locate, read_list
from creditflow.data.sources import UserFolder

_N_CLASSES = 100
_UNPACKED = ("train/{0}/{1}", "val/{1}", "val/{0}/{1}")

_FOLDER = UserFolder(
    "imagenet100",
    ("train.txt", "test.txt"),
    "https://github.com/thuml/HashNet (the lists in pytorch/data/imagenet) and https://image-net.org"
    " (the images of ILSVRC2012)",
)


def _read(raw: Path) -> dict[str, Split]:
    folder = _FOLDER.located(raw)
    listed = {split: _list(folder / f"{split}.txt") for split in lists_in(folder)}
    check_disjoint({split: names for split, (names, _) in listed.items()}, folder)
    wnids = _wnids(*listed["train"])
    return {
        split: (_files(folder, names, [wnids[label] for label in labels]), labels)
        for split, (names, labels) in listed.items()
    }


def _class_names(raw: Path) -> list[str]:
    return _wnids(*_list(_FOLDER.located(raw) / "train.txt"))


def _list(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    names, labels = read_list(path, _N_CLASSES)
    if wrong := [name for name, n in zip(names, labels.sum(1), strict=True) if n != 1]:
        raise UserError(
            f"{path}: {len(wrong)} images have not exactly one label, for example {wrong[0]}; get the list again"
        )
    return names, labels.argmax(1)


def _wnids(names: list[str], labels: NDArray[np.int64]) -> list[str]:
    """Returns the WordNet id of each label: the file names of training images begin with it."""
    wnids = {
        label: PurePosixPath(name).name.partition("_")[0] for name, label in zip(names, labels.tolist(), strict=True)
    }
    return [wnids.get(label, f"class {label}") for label in range(_N_CLASSES)]


def _files(folder: Path, listed: list[str], wnids: list[str]) -> ImageFiles:
    """Returns the images at their listed paths, or at those of ILSVRC 2012 when it is unpacked."""
    pairs = zip(listed, wnids, strict=True)
    spellings = ((name, [form.format(wnid, PurePosixPath(name).name) for form in _UNPACKED]) for name, wnid in pairs)
    return ImageFiles(folder, [locate(folder, name, others) for name, others in spellings])


DATASET = Dataset(checksums={}, sources=[_FOLDER], read=_read, class_names=_class_names)
