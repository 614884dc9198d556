"""Arrays of NumPy's .npz files, read so that a damaged or hostile file takes no memory and runs no code."""

import io
import math
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_array(archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    """Returns an array of an .npz file. Nothing is taken from memory before the header fits the number of bytes.

    Raises KeyError if there is no array of this name, and ValueError if it is damaged, holds objects, or has more than
    `limit` bytes.
    """
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > limit or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is larger than {limit >> 20:,} MiB, or packed in another way than NumPy packs")
    with archive.open(member) as stream:
        content = io.BytesIO(stream.read(limit))
    version = np.lib.format.read_magic(content)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(content)
    left = len(content.getbuffer()) - content.tell()
    if dtype.hasobject:
        raise ValueError(f"Object arrays cannot be loaded, and {name} is one")
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{name} promises an array of shape {shape}, and has {left:,} bytes")
    content.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
    return array
