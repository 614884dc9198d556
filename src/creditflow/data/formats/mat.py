"""MATLAB files (level 5), as SVHN and the ImageNet development kit have them.

SciPy reads them too, but can crash on damaged ones; the part of the format that is needed here is small.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from creditflow.core.errors import UserError, one_line

_HEADER, _LITTLE_ENDIAN = 128, b"IM"
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _TEXT = 2, 4
#: How numbers are stored, and what kind of array they make up.
_STORED = {1: "<i1", 2: "<u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_NUMBERS = {6: "<f8", 7: "<f4", 8: "<i1", 9: "<u1", 10: "<i2", 11: "<u2", 12: "<i4", 13: "<u4", 14: "<i8", 15: "<u8"}
_ENCODINGS = {1: "latin1", 2: "latin1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}
_COMPLEX = 1 << 11
#: Bytes of one variable.
_MAX_CONTENT = 1 << 30


def read_mat(path: Path, names: Sequence[str]) -> list[Any]:
    """Returns variables of a MATLAB file by their name: arrays of numbers, text, or, for an array of structs, a list of dicts.

    Whatever else a file may hold is None. Raises UserError if the file is damaged or does not have the variables.
    """
    try:
        found = dict(_variables(memoryview(path.read_bytes()), names))
    except (OSError, ValueError, IndexError, KeyError, StopIteration, struct.error, zlib.error) as error:
        raise UserError(f"{path} is truncated or corrupt ({one_line(error)}); delete it and get it again") from error
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{path} has no {', '.join(missing)}; delete it and get it again")
    return [found[name] for name in names]


def _variables(content: memoryview, names: Sequence[str]) -> list[tuple[str, Any]]:
    if len(content) < _HEADER or content[_HEADER - 2 : _HEADER] != _LITTLE_ENDIAN:
        raise ValueError("it is no MATLAB 5 file")
    matrices = [_inflated(data) if kind == _COMPRESSED else data for kind, data in _elements(content[_HEADER:])]
    return [(name, _value(matrix)) for matrix in matrices if (name := _name(matrix)) in names]


def _inflated(data: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    content = inflater.decompress(data, _MAX_CONTENT)
    if not inflater.eof:
        raise ValueError("a compressed variable ends early or is too large")
    return next(data for kind, data in _elements(memoryview(content)) if kind == _MATRIX)


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yields kind and content of what lies one behind the other."""
    at = 0
    while at < len(data):
        (kind,) = struct.unpack_from("<I", data, at)
        if kind >> 16:  # up to four bytes lie in the head itself
            kind, size, start, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            (size,) = struct.unpack_from("<I", data, at + 4)
            start = at + 8
            following = start + size + (-size % 8 if kind != _COMPRESSED else 0)
        if start + size > min(following, len(data)):
            raise ValueError("it ends early")
        yield kind, data[start : start + size]
        at = following


def _name(matrix: memoryview) -> str:
    _, _, (_, name), *_ = _elements(matrix)
    return bytes(name).decode("latin1")


def _value(matrix: memoryview, inside: bool = False) -> Any:
    if len(matrix) == 0:
        return None
    parts = _elements(matrix)
    flags = int(np.frombuffer(next(parts)[1], "<u4")[0])
    shape = np.frombuffer(next(parts)[1], "<i4").tolist()
    next(parts)  # the name
    kind = flags & 0xFF
    if kind in _NUMBERS and not flags & _COMPLEX:
        stored, content = next(parts)
        if min(shape) < 0:
            raise ValueError(f"an array of shape {shape}")
        return np.frombuffer(content, _STORED[stored]).astype(_NUMBERS[kind], copy=False).reshape(shape, order="F")
    if kind == _TEXT:
        stored, content = next(parts)
        return bytes(content).decode(_ENCODINGS[stored])
    return _structs(parts, prod(shape)) if kind == _STRUCT and not inside else None


def _structs(parts: Iterator[tuple[int, memoryview]], n: int) -> list[dict[str, Any]]:
    width = int(np.frombuffer(next(parts)[1], "<i4")[0])
    text = bytes(next(parts)[1])
    if not 0 < width <= len(text):
        raise ValueError("structs without fields")
    fields = [text[start : start + width].partition(b"\0")[0].decode("latin1") for start in range(0, len(text), width)]
    return [{field: _value(next(parts)[1], inside=True) for field in fields} for _ in range(n)]
