"""Every expansion has a limit on what comes out: a few bytes cannot ask for all memory, in any reader."""

import gzip
import io
import json
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import formats
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import read_json, read_parquet
from creditflow.data.datasets import coco
from creditflow.data.downloads import NotAvailableError
from creditflow.data.formats import archives, idx, lists, medmnist
from creditflow.data.formats.archives import read_members, unpack
from creditflow.data.formats.medmnist import read_medmnist
from creditflow.data.prepared import load_prepared
from creditflow.data.sources import receive
from creditflow.models import published
from creditflow.reporting.published import read_published
from creditflow.reporting.results_page import results_page
from creditflow.workflow import yaml_files

MIB = 1 << 20
#: Three gigabytes of zeros as 48 members of gzip, each of 64 MiB: 3 MB.
BOMB = gzip.compress(bytes(64 * MIB), 1) * 48


@contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Checks that Python and NumPy take no more memory than this."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def test_gzip_that_asks_for_gigabytes_is_refused_on_the_way(tmp_path: Path) -> None:
    assert len(BOMB) < 16 * MIB
    with at_most(40 * MIB), pytest.raises(NotAvailableError, match="more content than the 256 MiB"):
        receive(io.BytesIO(BOMB), "0" * 64, tmp_path / "target", "here")
    assert list(tmp_path.iterdir()) == []


def test_idx_files_that_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_MAX_CONTENT", 8 * MIB)
    (tmp_path / "f").write_bytes(BOMB)
    with at_most(40 * MIB), pytest.raises(UserError, match="more content than the 8 MiB"):
        idx.read_idx(tmp_path / "f")


@pytest.mark.parametrize(
    "header",
    [struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), b"\x00\x00\x08\xff" + b"\x00\x00\x00\x01" * 255],
    ids=["sizes", "dimensions"],
)
def test_idx_headers_that_promise_too_much(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(header + bytes(100))
    with at_most(2 * MIB), pytest.raises(UserError, match=r"promises|not an IDX file"):
        idx.read_idx(tmp_path / "f")


def tar_of(*members: tuple[str, int, bytes]) -> bytes:
    """Returns a .tar.gz archive of members (name, promised size, type) that have no content."""
    content = b""
    for name, size, kind in members:
        info = tarfile.TarInfo(name)
        info.size, info.type = size, kind
        content += info.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(content + bytes(1024))


@pytest.mark.parametrize(
    "content",
    [
        tar_of(("wanted", 600 * MIB, tarfile.REGTYPE)),
        tar_of(("wanted", 1 << 50, tarfile.REGTYPE)),
        tar_of(("other", 1 << 50, tarfile.REGTYPE), ("wanted", 1, tarfile.REGTYPE)),
        tar_of(("header", 1 << 40, tarfile.XHDTYPE)),
        tar_of(("header", 2 << 30, tarfile.GNUTYPE_LONGNAME)),
        tar_of(*[(f"member {number}", 0, tarfile.REGTYPE) for number in range(60)]),
    ],
    ids=["large", "huge", "other", "pax header", "long name", "many"],
)
def test_tar_archives_that_promise_too_much(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MAX_MEMBERS", 50)
    (tmp_path / "f").write_bytes(content)
    with at_most(8 * MIB), pytest.raises(UserError) as caught:
        read_members(tmp_path / "f", ["wanted"])
    assert "\n" not in str(caught.value) and str(tmp_path / "f") in str(caught.value)


def zip_of(content: bytes, method: int = zipfile.ZIP_DEFLATED, promised: int | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("train/a", content)
        if promised is not None:
            archive.filelist[0].file_size = promised
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (zip_of(b"x", promised=3 << 30), "would unpack to more than 1 GiB"),
        (zip_of(b"x", promised=1 << 45), "would unpack to more than 1 GiB"),
        (zip_of(b"x" * 99, zipfile.ZIP_LZMA), "packed in a way"),
        (zip_of(b"x" * 99, zipfile.ZIP_BZIP2), "packed in a way"),
    ],
)
def test_zip_archives_that_expand(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with at_most(4 * MIB), pytest.raises(UserError, match=message):
        unpack(tmp_path / "f", tmp_path / "out", ["train"])
    assert not (tmp_path / "out").exists()


def test_a_zip_member_gives_no_more_than_it_promises(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(zip_of(bytes(64 * MIB), promised=10))
    with at_most(8 * MIB), pytest.raises(UserError, match="truncated or corrupt"):
        unpack(tmp_path / "f", tmp_path / "out", ["train"])
    assert (tmp_path / "out/train/a").stat().st_size <= 10


def npz_that_promises(shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    names = [f"{split}_{part}" for split in ("train", "test") for part in ("images", "labels")]
    return formats.zipped({f"{name}.npy": header.getvalue() + bytes(8) for name in names})


@pytest.mark.parametrize("shape", [(10**10, 28, 28), (2**62, 2**62), (10**6,), (-1, 28)])
def test_arrays_whose_header_promises_too_much(shape: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(npz_that_promises(shape))
    with at_most(4 * MIB), pytest.raises(UserError, match="promises an array of shape"):
        read_medmnist(tmp_path / "f", (28, 28), 1)


def test_arrays_that_expand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(medmnist, "_MAX_ARRAY", MIB)
    files, _ = formats.pathmnist(train_images=np.zeros((2000, 28, 28, 3), np.uint8))
    (tmp_path / "f").write_bytes(files["pathmnist.npz"])
    with at_most(4 * MIB), pytest.raises(UserError, match="is larger than 1 MiB"):
        read_medmnist(tmp_path / "f", (28, 28, 3), 1)


def test_weights_that_expand(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(4 * MIB)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "f", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "f").stat().st_size < MIB
    assert set(published._read_state(tmp_path / "plain.pth")) == {"fc.weight"}
    with pytest.raises(UserError, match="cannot be read as a state dict"):
        published._read_state(tmp_path / "f")


DEEP = b'{"a":' * 50_000


@pytest.mark.parametrize("length", [2**20, 2**40, 2**63])
def test_safetensors_whose_header_promises_too_much(length: int, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(struct.pack("<Q", length) + b"{}")
    with at_most(4 * MIB), pytest.raises(UserError, match="is not a prepared dataset"):
        load_prepared(tmp_path / "f", "train")


def test_json_that_is_deep_or_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "annotations/instances_train2014.json"
    formats.write(tmp_path, formats.coco() | {"origin.json": "{}"})
    read: Callable[[Path], Any] = plugins.load("dataset", "coco").DATASET.read
    read(tmp_path)
    monkeypatch.setattr(coco, "_MAX_ANNOTATIONS", 1000)
    with pytest.raises(UserError, match="it is larger than"):
        read(tmp_path)
    path.write_bytes(DEEP[:999])
    with pytest.raises(UserError, match="no annotations of objects"):
        read(tmp_path)
    monkeypatch.undo()
    for reader, file in ((read, path), (lambda folder: read_json(folder / "note", "a note"), tmp_path / "note")):
        file.write_bytes(DEEP)
        with pytest.raises(UserError) as caught:
            reader(tmp_path)
        assert "\n" not in str(caught.value)


def test_lists_that_are_no_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text("a/" * 6000 + " 0 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 1: 12,004 characters"):
        lists.read_list(tmp_path / "f", 2)
    monkeypatch.setattr(lists, "_MAX_LIST", 1000)
    with pytest.raises(UserError, match="larger than a list"):
        lists.read_list(tmp_path / "f", 2)


def test_tables_that_promise_billions_of_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("creditflow.core.tables._MAX_CELLS", 1_000_000)
    pd.DataFrame({"a": np.zeros(2_000_000)}).to_parquet(tmp_path / "f")
    assert (tmp_path / "f").stat().st_size < MIB
    with at_most(8 * MIB), pytest.raises(ValueError, match="promises 2,000,000 rows"):
        read_parquet(tmp_path / "f")


def repeated_text() -> pa.Table:
    indices = pa.array(np.zeros(20_000, np.int32))
    return pa.table({"a": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 500_000]))})


def one_list() -> pa.Table:
    return pa.table({"a": pa.array([[1, 2, 3]])})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (repeated_text, "texts would expand"),
        (one_list, "columns hold lists"),
        (lambda: pa.table({f"c{number}": [1] for number in range(1001)}), "it has 1,001 columns"),
    ],
    ids=["texts", "lists", "columns"],
)
def test_tables_that_expand_in_other_ways(table: Callable[[], Any], message: str, tmp_path: Path) -> None:
    parquet.write_table(table(), tmp_path / "f", compression="zstd")
    assert (tmp_path / "f").stat().st_size < MIB
    with at_most(8 * MIB), pytest.raises(ValueError, match=message):
        read_parquet(tmp_path / "f")


def test_csv_files_that_are_wide_or_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_text(",".join("c" * 100_000) + "\n", encoding="utf-8")
    with at_most(8 * MIB), pytest.raises(UserError, match="it has 100,000 columns"):
        read_published(tmp_path / "f")
    monkeypatch.setattr("creditflow.core.files._MAX_CSV", 1000)
    with pytest.raises(UserError, match="more than 1,000 bytes"):
        read_published(tmp_path / "f")


def test_annotations_with_more_values_than_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    formats.write(tmp_path, formats.coco() | {"origin.json": "{}"})
    monkeypatch.setattr(coco, "_MAX_ANNOTATION_VALUES", 1000)
    (tmp_path / "annotations/instances_train2014.json").write_bytes(b"[" + b"[]," * 1000 + b"[]]")
    with pytest.raises(UserError, match="more than 1,000 values"):
        plugins.load("dataset", "coco").DATASET.read(tmp_path)


@pytest.mark.parametrize("text", ["- 1\n" * 400_000, "x" * (17 << 20)], ids=["many", "large"])
def test_yaml_that_is_large_without_aliases(text: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"more than 100,000 values|more than 16,777,216 bytes"):
        yaml_files.read(tmp_path / "f")


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh")),
        "a: &a [*a]\n",
        "[" * 5000,
        json.dumps([[[[]]]]).replace("[[[[", "[" * 200).replace("]]]]", "]" * 200),
    ],
)
def test_claims_that_expand(text: str, tmp_path: Path) -> None:
    (tmp_path / "claims.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"aliases|nested too deeply"):
        results_page(tmp_path)
