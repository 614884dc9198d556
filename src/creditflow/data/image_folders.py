"""Folders of images that a user names: which images they have, by class, and in which state. It imports nothing heavy.

A folder has `train` and `test` with a folder for each class in both, or folders of classes alone, which are split.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import as_path, fingerprint, is_left_behind, sha256
from creditflow.data.settings import SplitSettings

SPLITS = ("train", "test")

#: Endings of the files that are taken for images; `image_files.FORMATS` has the formats.
_ENDINGS = (
    *(".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jpe", ".jp2", ".j2k", ".png"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)


@dataclass(frozen=True)
class ImageFolder:
    """What a folder has.

    Attributes:
        folder: the folder.
        classes: names of the classes, sorted; their places are the labels.
        names: paths of the images of each split below the folder, sorted within each class, by class.
        left_out: files in the folders of classes whose names have no ending of an image.
        state: a hash of the names, sizes and times of all images.
    """

    folder: Path
    classes: Sequence[str]
    names: Mapping[str, Mapping[str, Sequence[str]]]
    left_out: Sequence[str]
    state: str


def source_id(view: Mapping[str, Any]) -> str:
    """Returns the id under which the dataset of a view is fetched and prepared, from the view's keys.

    It is the dataset's own, or, for a folder that the view names, `image_folder-<its last part>-<hash of its keys>`.
    """
    source = str(view["source"])
    if "path" not in view:
        return source
    word = re.sub(r"[^a-z0-9]+", "_", Path(view["path"].strip()).name.lower()).strip("_") or "folder"
    return f"{source}-{word[:40]}-{fingerprint([view['path'], view.get('split')])[:8]}"


def plugin_of(source: str) -> str:
    """Returns the dataset whose file reads what has this id; see `source_id`."""
    return source.partition("-")[0]


def state_of(path: str) -> str:
    """Returns a hash of the names, sizes and times of all files of a folder, for a workflow that looks for changes.

    It is empty for a folder that cannot be read: whoever reads the folder says why.
    """
    try:
        return _state(as_path(path), [name for name, _ in _walk(as_path(path), "")])
    except UserError:
        return ""


def look_at(folder: Path, split: SplitSettings | None) -> ImageFolder:
    """Returns what a folder of images has.

    Hidden and temporary files and folders are left out, and so are links to nothing.

    Args:
        folder: the folder.
        split: how its images are split; None for a folder that has `train` and `test`.

    Raises:
        UserError: if the folder cannot be read, is laid out otherwise, or has a class without an image.
    """
    if split is not None:
        _check_unsplit(folder)
        images, left_out = _by_class(folder, "")
        names = _split(folder, images, split)
    else:
        _check_split(folder)
        parts = {part: _by_class(folder, f"{part}/") for part in SPLITS}
        names = {part: images for part, (images, _) in parts.items()}
        left_out = [name for _, others in parts.values() for name in others]
    classes = _classes(folder, names)
    state = _state(folder, sorted(name for images in names.values() for part in images.values() for name in part))
    return ImageFolder(folder, classes, names, left_out, state)


def images_by_class(folder: Path) -> dict[str, list[str]]:
    """Returns the images of each class of a folder of classes, as paths below it; both are sorted.

    Raises UserError if the folder cannot be read, has no folders, or has `train` and `test` in place of classes.
    """
    if all((folder / part).is_dir() for part in SPLITS):
        raise UserError(f"{folder} has train and test; name the folder of classes, such as {folder / 'test'}")
    return _by_class(folder, "")[0]


def _check_split(folder: Path) -> None:
    lacking = [part for part in SPLITS if not (folder / part).is_dir()]
    if lacking and folder.is_dir():
        raise UserError(
            f"{folder} has no folder {' and no folder '.join(lacking)}; give it train and test with a folder for each"
            " class in both, or say which share of the images is for tests, such as split: {test: 0.2}"
        )


def _check_unsplit(folder: Path) -> None:
    if all((folder / part).is_dir() for part in SPLITS):
        raise UserError(f"{folder} has train and test already; leave `split` out")


def _by_class(folder: Path, part: str) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the images of each class of a part, and the files that are none."""
    images: dict[str, list[str]] = {}
    left_out: list[str] = []
    for entry in _entries(folder / part):
        if entry.is_dir():
            images[entry.name] = []
            for name, is_image in _walk(folder, f"{part}{entry.name}"):
                (images[entry.name] if is_image else left_out).append(name)
    if not images:
        raise UserError(f"{folder / part} has no folders of classes; put the images of each class into a folder")
    return {name: sorted(images[name]) for name in sorted(images)}, sorted(left_out)


def _classes(folder: Path, names: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """Returns the classes. Raises UserError if splits have different ones, if there is one alone, or one is empty."""
    train, test = (set(names[part]) for part in SPLITS)
    if train != test:
        name = min(train ^ test)
        here, there = ("train", "test") if name in train else ("test", "train")
        raise UserError(f"{folder}: {here} has the class {name!r} and {there} has not; give both the same classes")
    if len(train) == 1:
        raise UserError(f"{folder} has one class, {min(train)!r}, so that there is nothing to tell apart; add another")
    for part in SPLITS:
        for name, images in names[part].items():
            if not images:
                raise UserError(f"{folder}: the class {name!r} has no image for {part}; add some, or take it away")
    return sorted(train)


def _split(folder: Path, images: Mapping[str, Sequence[str]], split: SplitSettings) -> dict[str, dict[str, list[str]]]:
    """Splits the images of each class. Which of them test follows from their names and the seed alone."""
    names: dict[str, dict[str, list[str]]] = {part: {} for part in SPLITS}
    for label, members in images.items():
        if len(members) < len(SPLITS):
            raise UserError(f"{folder}: the class {label!r} has {len(members)} images, too few to split; add some")
        order = sorted(members, key=lambda name: sha256(f"{split.seed}/{name}".encode(errors="surrogateescape")))
        n_test = min(max(round(split.test * len(members)), 1), len(members) - 1)
        names["test"][label], names["train"][label] = sorted(order[:n_test]), sorted(order[n_test:])
    return names


def _walk(folder: Path, place: str) -> Iterator[tuple[str, bool]]:
    """Yields the path below `folder` of each file in a place, and whether its name is an image's."""
    for entry in _entries(folder / place):
        name = f"{place}/{entry.name}" if place else entry.name
        if entry.is_dir(follow_symlinks=not place.count("/")):  # a link deeper down may lead in a circle
            yield from _walk(folder, name)
        elif entry.is_file():
            yield name, entry.name.lower().endswith(_ENDINGS)


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not is_left_behind(entry.name)), key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else one_line(error)
        raise UserError(f"{folder} cannot be read as a folder of images ({why}); name an existing folder") from error


def _state(folder: Path, names: Sequence[str]) -> str:
    """Returns a hash of the names, sizes and times of files."""
    try:
        facts = [(name, os.stat(folder / name)) for name in names]  # noqa: PTH116 - a million paths
    except OSError as error:
        raise UserError(f"{folder} changes while it is read ({one_line(error)}); run the same command again") from error
    return fingerprint([[os.fsencode(name).hex(), fact.st_size, fact.st_mtime_ns] for name, fact in facts])
