"""A folder of images that an experiment names: `train` and `test` with a folder for each class, or folders of classes.

Labels are numbered in the order of the names of the classes, as in torchvision's ImageFolder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.dataset import Dataset, ImageFiles, Split
from creditflow.data.image_folders import ImageFolder, look_at
from creditflow.data.settings import SplitSettings


def _read(raw: Path) -> dict[str, Split]:
    content = _noted(raw)
    return {part: _files(content, images) for part, images in content.names.items()}


def _class_names(raw: Path) -> list[str]:
    return list(_noted(raw).classes)


def _files(content: ImageFolder, images: Mapping[str, Any]) -> Split:
    names = [name for label in content.classes for name in images[label]]
    labels = np.repeat(np.arange(len(content.classes)), [len(images[label]) for label in content.classes])
    return ImageFiles(content.folder, names), labels


def _noted(raw: Path) -> ImageFolder:
    """Returns what the folder has that `fetch` noted. Raises UserError if it has changed since."""
    origin = files.read_json(raw / "origin.json", "what fetch notes of a dataset", sealed=False)
    noted = origin if isinstance(origin, dict) else {}
    place, split, state = (noted.get(name) for name in ("folder", "split", "state"))
    if not isinstance(place, str) or not isinstance(split, dict | None):
        raise UserError(f"{raw}/origin.json is not what fetch notes of a folder of images; fetch the dataset again")
    settings = None if split is None else parse(SplitSettings, split, f"{raw}/origin.json: split")
    content = look_at(Path(place), settings)
    if content.state != state:
        raise UserError(f"{place} has changed since fetch looked at it; run the same command again")
    return content


DATASET = Dataset(checksums={}, sources=[], read=_read, class_names=_class_names, named_folder=True)
