"""ImageNet, ILSVRC 2012 (Russakovsky et al., 2015): 1,281,167 + 50,000 photographs, 1,000 classes.

The validation images are the test images here. Labels are numbered in the order of the WordNet ids, as in torchvision's
weights.
"""

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import Dataset, ImageFiles, Split
from creditflow.data.formats.mat import read_mat
from creditflow.data.sources import UserFolder

_N_CLASSES = 1000
#: The most bytes of the labels of the validation images; the published file has 180 kB.
_MAX_TRUTH = 1 << 24
_ENDINGS = (".jpeg", ".jpg")
#: How the names begin that editors, file managers and macOS give to files of their own.
_NOT_OURS = (".", "#", "~")
_KIT = "ILSVRC2012_devkit_t12"

_FOLDER = UserFolder(
    "imagenet", ("train", "val"), "https://image-net.org (the images of ILSVRC2012, unpacked; free for research)"
)


def _read(raw: Path) -> dict[str, Split]:
    folder = _FOLDER.located(raw)
    wnids = _wnids(folder)
    by_class = any((folder / "val" / wnid).is_dir() for wnid in wnids)
    return {
        "train": _by_class(folder, "train", wnids),
        "test": _by_class(folder, "val", wnids) if by_class else _flat(folder, wnids),
    }


def _class_names(raw: Path) -> list[str]:
    return _wnids(_FOLDER.located(raw))


def _wnids(folder: Path) -> list[str]:
    wnids = sorted(
        path.name for path in _entries(folder / "train") if re.fullmatch(r"n\d{8}", path.name) and path.is_dir()
    )
    if len(wnids) != _N_CLASSES:
        raise UserError(
            f"{folder / 'train'} has {len(wnids)} folders that are called like n01440764, not {_N_CLASSES};"
            " unpack all classes"
        )
    return wnids


def _by_class(folder: Path, part: str, wnids: list[str]) -> Split:
    names: list[str] = []
    labels: list[int] = []
    for label, wnid in enumerate(wnids):
        files = _images(folder / part / wnid)
        names += [f"{part}/{wnid}/{file}" for file in files]
        labels += [label] * len(files)
    return ImageFiles(folder, names), np.array(labels, dtype=np.int64)


def _flat(folder: Path, wnids: list[str]) -> Split:
    truth = _truth(folder, wnids)
    names = _images(folder / "val")
    numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})\.\w+", name) for name in names]
    wrong = [
        name for name, match in zip(names, numbers, strict=True) if not match or not 1 <= int(match[1]) <= len(truth)
    ]
    if wrong:
        raise UserError(
            f"{folder / 'val'}: {wrong[0]} is not one of the {len(truth)} images ILSVRC2012_val_00000001.JPEG ...;"
            " unpack it again"
        )
    chosen = [int(match[1]) - 1 for match in numbers if match]
    return ImageFiles(folder, [f"val/{name}" for name in names]), truth[chosen]


def _images(folder: Path) -> list[str]:
    names = sorted(
        path.name
        for path in _entries(folder)
        if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(_NOT_OURS) and path.is_file()
    )
    if not names:
        raise UserError(f"{folder} has no images; unpack it again")
    return names


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({one_line(error)}); unpack the images again") from error


def _truth(folder: Path, wnids: list[str]) -> NDArray[np.int64]:
    """Returns the labels of the validation images, by their number, from the development kit."""
    kit = folder / _KIT / "data"
    truth = kit / "ILSVRC2012_validation_ground_truth.txt"
    if not (kit / "meta.mat").exists() or not truth.exists():
        raise UserError(
            f"{folder / 'val'} has no folders of classes, and {kit} no meta.mat and {truth.name}, which say what"
            f" class an image has; get {_KIT}.tar.gz from https://image-net.org and unpack it in {folder}"
        )
    (synsets,) = read_mat(kit / "meta.mat", ["synsets"])
    try:
        numbers = {synset["WNID"]: int(synset["ILSVRC2012_ID"].item()) for synset in synsets}
        label = {numbers[wnid]: index for index, wnid in enumerate(wnids)}
        return np.array(
            [label[int(word)] for word in files.read_plain(truth, _MAX_TRUTH).decode("utf-8-sig").split()],
            dtype=np.int64,
        )
    except (AttributeError, OSError, ValueError, IndexError, KeyError, OverflowError, TypeError) as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{kit} is not the development kit of these classes ({why}); get it again") from error


DATASET = Dataset(checksums={}, sources=[_FOLDER], read=_read, class_names=_class_names)
