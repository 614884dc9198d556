"""Finds the image files that cannot be read, before anything is trained on the others."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles, Split
from creditflow.data.image_files import read_image

#: The number of unreadable files that are named.
_NAMED = 20
#: The number of files that wait for a thread at a time.
_BLOCK = 4096
#: A JPEG decoder can leave out detail, which is faster. It has to come to the end of the file all the same, so damage
#: shows.
_DRAFT = 32


def drop_unreadable(
    dataset: str, splits: Mapping[str, Split], threads: int = 1
) -> tuple[dict[str, Split], dict[str, dict[str, str]]]:
    """Decodes every image file once, and returns the splits without the files that cannot be read.

    The second value has these files: for each split of files a mapping from the file's name to the reason.
    """
    kept, unreadable = dict(splits), {}
    for name, (images, labels) in splits.items():
        if isinstance(images, ImageFiles):
            unreadable[name] = _reasons(images, f"{dataset} {name}", threads)
            if unreadable[name]:
                kept[name] = _without(unreadable[name], images, labels)
    return kept, unreadable


def _without(unreadable: Mapping[str, str], images: ImageFiles, labels: NDArray[np.int64] | NDArray[np.uint8]) -> Split:
    keep = [index for index, name in enumerate(images.names) if name not in unreadable]
    names = [images.names[index] for index in keep]
    return ImageFiles(images.folder, names), labels[np.array(keep, dtype=np.int64)]


def describe(reasons: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each of the first unreadable files, and one line for the rest."""
    for name, reason in list(reasons.items())[:_NAMED]:
        yield f"  left out {name}: {reason}"
    if len(reasons) > _NAMED:
        yield f"  left out {len(reasons) - _NAMED} more"


def check_share(dataset: str, split: str, n_kept: int, reasons: Mapping[str, str], max_share: float) -> None:
    """Raises UserError, with the first names, if more than `max_share` of a split's image files cannot be read."""
    n = n_kept + len(reasons)
    if len(reasons) > max_share * n:
        names = ", ".join([*list(reasons)[:3], *(["..."] if len(reasons) > 3 else [])])
        raise UserError(
            f"{dataset}: {len(reasons)} of {n} {split} images cannot be read, more than a share of {max_share:g}"
            f" ({names}); replace them, or raise data.max_unreadable in config/config.yaml"
        )


def _reasons(images: ImageFiles, title: str, threads: int) -> dict[str, str]:
    """Returns why files cannot be read, by the names of these files, in their order."""
    reasons = {}
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(desc=title, total=len(images), unit="image", leave=False, disable=None) as bar,
    ):
        for block in _blocks(images.names):
            for name, reason in zip(block, pool.map(lambda name: _why_not(images.folder / name), block), strict=True):
                if reason is not None:
                    reasons[name] = reason
            bar.update(len(block))
    return reasons


def _blocks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _BLOCK] for start in range(0, len(names), _BLOCK))


def _why_not(path: Path) -> str | None:
    """Returns why a file cannot be read as an image, or None if it can. Training reads it with the same function."""
    try:
        read_image(path, "RGB", _DRAFT, thorough=True)
    except UserError as error:
        reason = str(error).removeprefix(f"{path} cannot be read as an image (")
        return reason.removesuffix("); replace it, or prepare the dataset again")
    return None
