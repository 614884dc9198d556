"""CIFAR's Python archives: pickles in a tar archive, read so that they cannot run code, as pickles otherwise can."""

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import Split
from creditflow.data.formats.archives import read_members

_SHAPE = (3, 32, 32)
#: The largest number that a label may be, so that it fits into an array.
_MAX_LABEL = 2**31 - 1


def read_splits(archive: Path, splits: Mapping[str, Sequence[str]], label_key: bytes) -> dict[str, Split]:
    """Reads splits that consist of batches.

    Args:
        archive: a .tar.gz file.
        splits: for each split the members of the archive that are its batches.
        label_key: the key under which a batch has its labels.

    Raises UserError if a member is missing, damaged, or something else than a batch.
    """
    contents = read_members(archive, {name for names in splits.values() for name in names})
    return {split: _join(archive, names, contents, label_key) for split, names in splits.items()}


def read_names(archive: Path, member: str, key: bytes) -> tuple[str, ...]:
    """Returns the class names in a member of the archive. Raises UserError as `read_splits` does."""
    origin = f"{archive}: {member}"
    names = _unpickle(read_members(archive, {member})[member], origin).get(key)
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise _not_a_batch(origin, f"{key.decode()} is not a list of names")
    try:
        return tuple(name.decode() for name in names)
    except UnicodeDecodeError as error:
        raise _not_a_batch(origin, one_line(error)) from error


def _join(archive: Path, names: Sequence[str], contents: dict[str, bytes], label_key: bytes) -> Split:
    images, labels = zip(*(_batch(contents.pop(name), label_key, f"{archive}: {name}") for name in names), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def _batch(content: bytes, label_key: bytes, origin: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    batch = _unpickle(content, origin)
    data, labels = batch.get(b"data"), batch.get(label_key)
    if not isinstance(data, _Array) or not isinstance(labels, list) or not all(map(_is_label, labels)):
        raise _not_a_batch(origin, f"it has no array 'data' or no list of numbers {label_key.decode()!r}")
    images = data.values
    if images.ndim != 2 or images.shape != (len(labels), np.prod(_SHAPE)):
        raise _not_a_batch(origin, f"it has data of shape {images.shape} and {len(labels)} labels")
    return images.reshape(-1, *_SHAPE), np.array(labels, dtype=np.int64)


def _is_label(value: object) -> bool:
    return type(value) is int and abs(value) <= _MAX_LABEL  # whether the dataset has it is checked later


def _not_a_batch(origin: str, why: str) -> UserError:
    return UserError(f"{origin} is not what CIFAR has there ({why}); fetch it again")


def _unpickle(content: bytes, origin: str) -> dict[Any, Any]:
    try:
        value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can lead to any error
        raise _not_a_batch(origin, one_line(error)) from error
    if not isinstance(value, dict):
        raise _not_a_batch(origin, f"it is a {type(value).__name__}")
    return value


class _Array:
    """A NumPy array of bytes, as a pickle describes it. The pickle gets no access to NumPy itself."""

    values: NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], "_Type", bool, bytes]) -> None:
        _, shape, _, by_columns, content = state
        self.values = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if by_columns else "C")


class _Type:
    """The type of an array's elements, as a pickle describes it. Only unsigned bytes are admitted."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        if name not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of {name!r}")

    def __setstate__(self, state: object) -> None:
        pass


def _array(*_: object) -> _Array:
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle._Unpickler):  # the unpickler in C takes any amount of memory that a few damaged bytes ask for
    """Admits lists, dicts, numbers, text and arrays of bytes, and refuses anything else that a pickle names."""

    _admitted: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name. Raises UnpicklingError if there is none."""
        try:
            return self._admitted[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR archive needs") from None
