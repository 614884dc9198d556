"""Finds image files that cannot be read before anything is trained on the others."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import ImageFiles, Split

#: How many unreadable files are named.
_NAMED = 20
#: Files that wait for a thread at a time.
_BLOCK = 4096
#: JPEG decoders can leave out detail, which is faster; damage shows all the same, as they have to come to the end.
_DRAFT = (64, 64)


def drop_unreadable(
    dataset: str, splits: Mapping[str, Split], threads: int = 1
) -> tuple[dict[str, Split], dict[str, dict[str, str]]]:
    """Decodes every image file once, and returns the splits without those that cannot be read, and these with the reason.

    The second mapping has an entry for each split of files.
    """
    kept, unreadable = dict(splits), {}
    for name, (images, labels) in splits.items():
        if isinstance(images, ImageFiles):
            unreadable[name] = _reasons(images, f"{dataset} {name}", threads)
            if unreadable[name]:
                keep = [index for index, image in enumerate(images.names) if image not in unreadable[name]]
                kept[name] = (
                    ImageFiles(images.folder, [images.names[index] for index in keep]),
                    labels[np.array(keep, dtype=np.int64)],
                )
    return kept, unreadable


def describe(reasons: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each of the first unreadable files, and one for the rest."""
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
            f"{dataset}: {len(reasons)} of {n} {split} images cannot be read, more than a share of {max_share:g} ({names});"
            " replace them, or raise data.max_unreadable in config/config.yaml"
        )


def _reasons(images: ImageFiles, title: str, threads: int) -> dict[str, str]:
    """Returns the files that cannot be read, by name, in their order, with the reason."""
    found = {}
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(desc=title, total=len(images), unit="image", leave=False, disable=None) as bar,
    ):
        for block in _blocks(images.names):
            for name, reason in zip(block, pool.map(lambda name: _why_not(images.folder / name), block), strict=True):
                if reason is not None:
                    found[name] = reason
            bar.update(len(block))
    return found


def _blocks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _BLOCK] for start in range(0, len(names), _BLOCK))


def _why_not(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            image.draft("RGB", _DRAFT)
            image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders fail in many ways on damaged files
        return one_line(error).replace(str(path), path.name)
    return None
