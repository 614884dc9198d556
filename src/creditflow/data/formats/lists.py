"""Lists of images as in the literature on hashing: each line has a path, and a zero or one for each label."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import read_plain

#: The most characters of a line, and bytes of a list; ImageNet's longest would have 300 MB.
_MAX_LINE, _MAX_LIST = 10_000, 1 << 30


def read_list(path: Path, n_labels: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Reads a list of lines "path l1 ... lK". Returns the paths as they are written, and the labels (N, K).

    Raises UserError, with the number of the line, if a line is something else.
    """
    try:
        if path.stat().st_size > _MAX_LIST:
            raise UserError(f"{path} is larger than a list of images; get it again")
        lines = read_plain(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); get it again") from error
    rows = [_row(line, n_labels, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise UserError(f"{path} is empty; get it again")
    names, labels = zip(*rows, strict=True)
    return list(names), np.array(labels, dtype=np.uint8)


def _row(line: str, n_labels: int, where: str) -> tuple[str, list[bool]]:
    if len(line) > _MAX_LINE:
        raise UserError(f"{where}: {len(line):,} characters; is this a list of images?")
    name, *labels = line.rsplit(maxsplit=n_labels)
    if len(labels) != n_labels or not set(labels) <= {"0", "1"}:
        raise UserError(
            f"{where}: not a path and {n_labels} labels that are 0 or 1; is this the list of another dataset?"
        )
    if ".." in PurePosixPath(name).parts:
        raise UserError(f"{where}: the path points out of the dataset's folder; write it without '..'")
    return name.strip(), [label == "1" for label in labels]


def lists_in(folder: Path) -> list[str]:
    """Returns the splits that a folder lists: train and test, and, for retrieval, database if its list is there."""
    return ["train", "test", *(["database"] if (folder / "database.txt").is_file() else [])]


def check_disjoint(listed: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Raises UserError if a test image is also in another list of a folder.

    Training images may be in the database; test images are the queries, and may not.
    """
    for split in listed.keys() - {"test"}:
        if common := sorted(set(listed["test"]) & set(listed[split])):
            raise UserError(
                f"{folder}: {len(common)} images are in {split}.txt and in test.txt, for example {common[0]};"
                " get the right lists"
            )


def locate(folder: Path, listed: str, others: Sequence[str] = ()) -> str:
    """Returns the path of an image below `folder`.

    It is the first path at which there is a file: the path as listed, the same without its first folders (which may be
    those of the list's author), or one of `others`. If there is no file, it is the path as listed; reading it
    will then fail.
    """
    spellings = [*_endings(listed), *others]
    return next((name for name in spellings if (folder / name).is_file()), spellings[0])


def _endings(listed: str) -> Iterator[str]:
    parts = [part for part in PurePosixPath(listed).parts if part != "/"]
    return ("/".join(parts[start:]) for start in range(len(parts)))
