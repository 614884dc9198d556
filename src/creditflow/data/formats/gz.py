"""Gzip, with a limit on what comes out: a few megabytes can ask for gigabytes."""

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import IO, Any

from creditflow.core.errors import one_line

_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


class ExpansionError(Exception):
    """Compressed data is damaged or has more content than is expected; the message says which, in one line."""


def decompressed(pieces: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """Yields the content of data that comes in pieces, decompressed if it is gzip, and as it is otherwise.

    Raises ExpansionError if the gzip data is damaged, or if there are more than `limit` bytes of content.
    """
    waiting = iter(pieces)
    start = next(waiting, b"")
    while 0 < len(start) < len(_MAGIC) and (more := next(waiting, b"")):
        start += more
    whole = chain([start], waiting)
    total = 0
    for piece in _gunzipped(_Pieces(whole)) if start[: len(_MAGIC)] == _MAGIC else whole:
        total += len(piece)
        if total > limit:
            raise ExpansionError(f"it has more content than the {limit >> 20:,} MiB that are expected at most")
        yield piece


def read_at_most(file: IO[bytes], limit: int) -> bytes:
    """Returns the content of an open file, as `decompressed` does."""
    return b"".join(decompressed(iter(lambda: file.read(_CHUNK), b""), limit))


def _gunzipped(raw: "_Pieces") -> Iterator[bytes]:
    try:
        with gzip.GzipFile(fileobj=raw) as stream:
            while piece := stream.read(_CHUNK):
                yield piece
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ExpansionError(one_line(error)) from error


class _Pieces(io.RawIOBase):
    """A stream of bytes that come in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._piece = pieces, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        n_bytes = min(len(buffer), len(self._piece))
        buffer[:n_bytes] = self._piece[:n_bytes]
        self._piece = self._piece[n_bytes:]
        return n_bytes
