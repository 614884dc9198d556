"""Readers of formats on files with a few wrong bytes: each ends in one line, or reads what it can."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from creditflow.core.errors import UserError
from creditflow.data.formats import cifar
from creditflow.data.formats.archives import read_members, unpack
from creditflow.data.formats.idx import read_idx
from creditflow.data.formats.mat import read_mat
from formats import RNG, idx, jpeg, python2_pickle, tar, zipped


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Changes up to eight bytes, mostly near the ends, where the structure is, and sometimes cuts the end off."""
    spoilt = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        place = rng.choice(
            [
                rng.integers(len(spoilt)),
                rng.integers(min(len(spoilt), 220)),
                len(spoilt) - 1 - rng.integers(min(len(spoilt), 60)),
            ]
        )
        spoilt[place] = rng.integers(256)
    return bytes(spoilt[: rng.integers(len(spoilt))] if rng.random() < 0.2 else spoilt)


@pytest.mark.parametrize("kind", ["pickle", "mat", "zip", "tar", "idx"])
def test_whatever_is_wrong_with_a_file_it_ends_in_one_line(kind: str, tmp_path: Path) -> None:
    pictures = RNG.integers(0, 256, (20, 3072), dtype=np.uint8)
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"y": np.arange(5)[:, np.newaxis], "X": {"a": 1.0, "b": "text"}})
    batch = python2_pickle({b"data": pictures, b"labels": list(range(20))})
    readers: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
        "pickle": (
            batch,
            lambda path: (
                path.write_bytes(tar({"a": path.read_bytes()})) and cifar.read_splits(path, {"train": ["a"]}, b"labels")
            ),
        ),
        "mat": (buffer.getvalue(), lambda path: read_mat(path, ["X", "y"])),
        "zip": (
            zipped({f"train/{n}": jpeg(n) for n in range(5)}),
            lambda path: unpack(path, tmp_path / "out", ["train"]),
        ),
        "tar": (tar({"a": b"1" * 99, "b": pictures.tobytes()}), lambda path: read_members(path, ["a", "b"])),
        "idx": (gzip.compress(idx(pictures)), read_idx),
    }
    content, read = readers[kind]
    rng = np.random.default_rng(1)
    refused, n = 0, 80 if kind == "mat" else 200  # a MATLAB file is read by a process of its own
    for _ in range(n):
        path = tmp_path / "file"
        path.write_bytes(damaged(content, rng))
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > n // 4
    path.write_bytes(content)
    read(path)
