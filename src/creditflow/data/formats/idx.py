"""The IDX format of MNIST and its relatives."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain
from creditflow.data.dataset import Split
from creditflow.data.formats.gz import ExpansionError, read_at_most

#: The most bytes of a file, decompressed; the largest published one has 47 MB. No file has more than three dimensions.
_MAX_CONTENT, _MAX_DIMENSIONS = 256 << 20, 3


def read_mnist_like(folder: Path, suffix: str = "") -> dict[str, Split]:
    """Reads the four files of MNIST and its relatives, whose names end in `suffix`.

    Raises UserError as `read_idx` does, or if the files are not images (N, H, W) and labels (N,).
    """
    return {split: _split(folder, prefix, suffix) for split, prefix in (("train", "train"), ("test", "t10k"))}


def _split(folder: Path, prefix: str, suffix: str) -> Split:
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}")
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}")
    if images.ndim != 3 or labels.ndim != 1:
        raise UserError(
            f"{folder}: {prefix} images of shape {images.shape} and labels of shape {labels.shape}; fetch it again"
        )
    return images[:, np.newaxis], labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes: two zero bytes, type 0x08, number of dimensions, sizes (big-endian), data.

    A file that is gzip is decompressed. Raises UserError if that fails, or if the header or the size is wrong.
    """
    content = _content(path)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or content[3] > _MAX_DIMENSIONS:
        raise UserError(f"{path} is not an IDX file of unsigned bytes; fetch it again")
    start = min(4 + 4 * content[3], len(content))
    shape = tuple(int.from_bytes(content[place : place + 4], "big") for place in range(4, start, 4))
    if len(content) - start != math.prod(shape) or 0 in shape:
        raise UserError(f"{path} is truncated: its header promises {math.prod(shape)} bytes of data; fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _content(path: Path) -> bytes:
    try:
        check_plain(path)
        with path.open("rb") as file:
            return read_at_most(file, _MAX_CONTENT)
    except (ExpansionError, OSError) as error:
        raise UserError(f"{path} is truncated or corrupt ({one_line(error)}); fetch it again") from error
