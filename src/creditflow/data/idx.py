"""The IDX format of MNIST and its relatives."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.errors import UserError


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an IDX file of unsigned bytes: two zero bytes, type 0x08, number of dimensions, sizes (big-endian), data.

    Raises UserError if the header or the size is wrong.
    """
    content = path.read_bytes()
    if len(content) < 4 or content[:3] != b"\x00\x00\x08" or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{path} is not an IDX file of unsigned bytes; delete its folder and fetch again")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").astype(int).tolist())
    if len(content) - start != math.prod(shape):
        raise UserError(f"{path} is truncated: its header promises {math.prod(shape)} bytes of data; delete its folder and fetch again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
