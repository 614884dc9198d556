"""Image files as one array, where all have one size and are few enough."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from creditflow.core.files import check_plain
from creditflow.data.dataset import ImageFiles, Split
from creditflow.data.image_files import FORMATS, read_image

#: The most bytes of the images of a dataset that are kept in one file; more stay in theirs.
_MAX_BYTES = 1 << 30
#: At half of the largest size that Pillow takes, a JPEG decoder leaves nothing out.
_WHOLE = 1 << 15
#: The number of files that wait for a thread at a time.
_BLOCK = 1024
#: Pillow's modes of images without colour.
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


def packed(splits: Mapping[str, Split], threads: int = 1) -> dict[str, Split]:
    """Returns splits of image files as arrays, uint8 (N, C, H, W); as files, if sizes differ or there are too many.

    The images have one channel if all files are grey, and three otherwise. Raises UserError if a file cannot be read.
    """
    paths = {
        name: [images.folder / file for file in images.names]
        for name, (images, _) in splits.items()
        if isinstance(images, ImageFiles)
    }
    everything = [path for members in paths.values() for path in members]
    mode = "L" if all(map(is_grey, everything)) else "RGB"
    width, height = read_image(everything[0], mode, _WHOLE).size
    if len(everything) * width * height * Image.getmodebands(mode) > _MAX_BYTES:
        return dict(splits)
    arrays: dict[str, Split] = {}
    for name, members in paths.items():
        array = _array(members, mode, (width, height), threads)
        if array is None:
            return dict(splits)
        arrays[name] = array, splits[name][1]
    return arrays


def is_grey(path: Path) -> bool:
    """Returns whether an image file has no colour; False for one that cannot be read."""
    try:
        check_plain(path)
        with Image.open(path, formats=FORMATS) as image:
            return image.mode in _GREY
    except Exception:  # Pillow fails in many ways on damaged files; `read_image` says in one line why
        return False


def _array(paths: Sequence[Path], mode: str, size: tuple[int, int], threads: int) -> NDArray[np.uint8] | None:
    """Returns the pixels of files; None if one of them has not this width and height."""
    width, height = size
    array = np.empty((len(paths), Image.getmodebands(mode), height, width), np.uint8)

    def read(index: int) -> bool:
        image = read_image(paths[index], mode, _WHOLE)
        if image.size != size:
            return False
        array[index] = np.asarray(image).reshape(height, width, -1).transpose(2, 0, 1)
        return True

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), _BLOCK):
            if not all(pool.map(read, range(start, min(start + _BLOCK, len(paths))))):
                return None
    return array
