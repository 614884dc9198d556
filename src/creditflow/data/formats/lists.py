"""Lists of images as the literature on hashing passes them on: each line a path and zeros and ones, one per label."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line


def read_list(path: Path, n_labels: int) -> tuple[list[str], NDArray[np.uint8]]:
    """Reads a list "path l1 ... lK": the paths as they are written, and labels (N, K).

    Raises UserError with the number of the line that is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); get it again") from error
    names, labels = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, *row = line.rsplit(maxsplit=n_labels)
        if len(row) != n_labels or not set(row) <= {"0", "1"}:
            raise UserError(
                f"{path}, line {number}: not a path and {n_labels} labels that are 0 or 1; is this the list of another dataset?"
            )
        if ".." in PurePosixPath(name).parts:
            raise UserError(
                f"{path}, line {number}: the path points out of the dataset's folder; write it without '..'"
            )
        names.append(name.strip())
        labels.append([word == "1" for word in row])
    if not names:
        raise UserError(f"{path} is empty; get it again")
    return names, np.array(labels, dtype=np.uint8)


def lists_in(folder: Path) -> list[str]:
    """Returns the splits that a folder has lists of: train and test, and, for retrieval, database where it is there."""
    return ["train", "test", *(["database"] if (folder / "database.txt").is_file() else [])]


def check_disjoint(listed: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Raises UserError if a test image is also in another list of a folder: training images may be in the database, queries not."""
    for other in listed.keys() - {"test"}:
        if both := sorted(set(listed["test"]) & set(listed[other])):
            raise UserError(
                f"{folder}: {len(both)} images are in {other}.txt and in test.txt, for example {both[0]}; get the right lists"
            )


def locate(folder: Path, listed: str, others: Sequence[str] = ()) -> str:
    """Returns the path below `folder` of an image: as listed, without leading folders (of the list's author), or one of `others`.

    As listed, if it is nowhere: that it is missing is found out when it is read.
    """
    spellings = [*_endings(listed), *others]
    return next((name for name in spellings if (folder / name).is_file()), spellings[0])


def _endings(listed: str) -> Iterator[str]:
    parts = [part for part in PurePosixPath(listed).parts if part != "/"]
    return ("/".join(parts[start:]) for start in range(len(parts)))
