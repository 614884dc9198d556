"""The IDX format of MNIST and its relatives."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import Split


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
            f"{folder}: {prefix} images of shape {images.shape} and labels of shape {labels.shape};"
            " delete it and fetch again"
        )
    return images[:, np.newaxis], labels.astype(np.int64)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes: two zero bytes, type 0x08, number of dimensions, sizes (big-endian), data.

    A file that is gzip is decompressed. Raises UserError if that fails, or if the header or the size is wrong.
    """
    content = _decompressed(path)
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{path} is not an IDX file of unsigned bytes; delete its folder and fetch again")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").astype(int).tolist())
    if len(content) - start != math.prod(shape):
        raise UserError(
            f"{path} is truncated: its header promises {math.prod(shape)} bytes of data;"
            " delete its folder and fetch again"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _decompressed(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(
            f"{path} is truncated or corrupt ({one_line(error)}); delete its folder and fetch again"
        ) from error
