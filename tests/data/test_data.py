"""Sources and the canonical form."""

import gzip
import json
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.datasets import fashion_mnist
from creditflow.data.fetching import fetch
from creditflow.data.formats.idx import read_idx
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import channel_statistics, load_prepared, save_prepared
from creditflow.data.sources import DebianPackage, Download, PackageFile
from helpers import stage

CONTENT = b"some raw bytes " * 50
SUMS = {"raw-file": files.sha256(CONTENT)}


def idx(array: np.ndarray) -> bytes:
    return (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


@pytest.mark.parametrize("name", ["raw-file", "raw-file.gz"])
def test_a_search_path_comes_first_plain_or_compressed(name: str, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    (here / name).write_bytes(gzip.compress(CONTENT) if name.endswith("gz") else CONTENT)
    source = fetch("toy", SUMS, [PackageFile("nowhere")], [tmp_path / "missing", here], there)
    assert source == f"folder {here}"
    assert (there / "raw-file").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "broken",
    [gzip.compress(CONTENT)[:-20], gzip.compress(CONTENT)[:30] + b"xx" + gzip.compress(CONTENT)[32:], CONTENT[:-1]],
)
def test_a_broken_file_in_a_search_path_is_named_and_nothing_else_is_tried(broken: bytes, tmp_path: Path) -> None:
    (tmp_path / "raw-file.gz").write_bytes(broken)
    good = Download(lambda: [(tmp_path / "mirror").as_uri()])
    with pytest.raises(UserError, match=r"toy: .*raw-file.*(truncated|corrupt).*replace or remove it"):
        fetch("toy", SUMS, [good], [tmp_path], tmp_path)


def test_mirrors_are_tried_in_turn_and_their_content_is_verified(tmp_path: Path) -> None:
    bad, good, out = tmp_path / "bad", tmp_path / "good", tmp_path / "out"
    for folder in (bad, good, out):
        folder.mkdir()
    (bad / "raw-file.gz").write_bytes(gzip.compress(CONTENT)[:-9])
    (good / "raw-file.gz").write_bytes(gzip.compress(CONTENT))
    mirrors = Download(lambda: [(tmp_path / "missing").as_uri(), bad.as_uri(), good.as_uri()])
    assert fetch("toy", SUMS, [mirrors], [], out) == "download"
    assert (out / "raw-file").read_bytes() == CONTENT

    (bad / "raw-file.gz").write_bytes(b"<html>a page instead of the file</html>")
    assert fetch("toy", SUMS, [mirrors], [], out) == "download"

    (good / "raw-file.gz").write_bytes(gzip.compress(CONTENT + b"!"))
    with pytest.raises(UserError, match="SHA-256"):
        fetch("toy", SUMS, [mirrors], [], out)


@pytest.mark.parametrize(
    "reply", [b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\ncut"]
)
def test_a_server_that_talks_nonsense_is_one_more_reason(reply: bytes, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match="no source has it"):
            fetch("toy", SUMS, [Download(lambda: [address])], [], tmp_path)
        thread.join()


def test_when_no_source_has_it_every_reason_is_given(tmp_path: Path) -> None:
    sources = [Download(lambda: [(tmp_path / "mirror").as_uri()]), PackageFile("not_a_package")]
    with pytest.raises(UserError) as caught:
        fetch("toy", SUMS, sources, [tmp_path / "missing"], tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(tmp_path / "missing"), "mirror", "not_a_package", "data.search_paths", "config/config.yaml"):
        assert part in message


@pytest.mark.parametrize("known", [True, False])
def test_the_debian_package_is_downloaded_with_package_lists_of_its_own(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt-get and dpkg-deb are scripts here that need, as the real ones do, lists that an update has written."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "apt-get").write_text(
        "#!/bin/sh\nfor word; do case $word in -oDir::State::Lists=*) lists=${word#*=} ;; -o*) ;; *) break ;; esac; shift; done\n"
        f"case $1 in\n update) touch $lists/{'toy' if known else 'other'} ;;\n"
        ' download) if [ -e $lists/$2 ]; then touch $2.deb; else echo "E: Unable to locate package $2" >&2; exit 100; fi ;;\nesac\n'
    )
    (bin_folder / "dpkg-deb").write_text(
        f'#!/bin/sh\nmkdir -p "$3/usr/share/toy" && cp {tmp_path}/raw-file "$3/usr/share/toy/"\n'
    )
    for script in bin_folder.iterdir():
        script.chmod(0o755)
    (tmp_path / "raw-file").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    out = tmp_path / "out"
    out.mkdir()
    package = DebianPackage("toy", "usr/share/toy")
    if known:
        assert fetch("toy", SUMS, [package], [], out) == "Debian package toy"
        assert (out / "raw-file").read_bytes() == CONTENT
    else:
        with pytest.raises(UserError, match="apt-get download toy failed: E: Unable to locate package toy"):
            fetch("toy", SUMS, [package], [], out)


def test_fashion_mnists_reader_reads_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, n in (("train", 7), ("t10k", 3)):
        arrays[prefix] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(arrays[prefix][0]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(arrays[prefix][1]))
    splits = fashion_mnist.DATASET.read(tmp_path)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(splits[split][0][:, 0], arrays[prefix][0])
        np.testing.assert_array_equal(splits[split][1], arrays[prefix][1])


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", b"\x00\x00\x08\x03\x00", idx(np.zeros((2, 3)))[:-1]]
)
def test_what_is_not_idx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        read_idx(path)


def test_the_digits_are_scikit_learns(digits: Path) -> None:
    bunch = load_digits()
    parts = [load_prepared(digits, split) for split in ("train", "test")]
    images = torch.cat([part.images for part in parts])[:, 0]
    np.testing.assert_allclose(images.double().numpy() * 16 / 255, bunch.images, atol=0.05)
    np.testing.assert_array_equal(torch.cat([part.labels for part in parts]), bunch.target)
    assert parts[0].class_names == tuple("0123456789")


def test_classes_are_chosen_and_renumbered_in_their_order(digits: Path) -> None:
    everything = load_prepared(digits, "train")
    chosen = load_prepared(digits, "train", [7, 2])
    assert chosen.class_names == ("7", "2")
    assert torch.equal(chosen.images[chosen.labels == 0], everything.images[everything.labels == 7])
    assert torch.equal(chosen.images[chosen.labels == 1], everything.images[everything.labels == 2])
    assert len(chosen.labels) == int(((everything.labels == 7) | (everything.labels == 2)).sum())
    with pytest.raises(UserError, match="class 12 has no image"):
        load_prepared(digits, "train", [1, 12])


def test_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)))
    assert channel_statistics(np.zeros((2, 1, 2, 2), np.uint8)) == ([0.0], [1.0])
    assert to_unit_interval(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]


def test_equal_datasets_are_equal_files(tmp_path: Path) -> None:
    split = (np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 1]))
    for name in ("one", "two"):
        save_prepared(tmp_path / name, {"train": split, "test": split}, ["a", "b"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(UserError, match=r"labels must lie in 0\.\.0"):
        save_prepared(tmp_path / "three", {"train": split}, ["a"])
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_what_is_not_a_prepared_dataset_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prepared.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a prepared dataset with a 'train' split"):
        load_prepared(path, "train")


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "digits.csv.gz").write_bytes(b"\x1f\x8bbroken")
    done = stage(
        "fetch", "--dataset", "digits", "--search-path", tmp_path / "bad", "--output", tmp_path / "out" / "raw"
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "digits.csv.gz is truncated or corrupt" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_fetch_notes_where_the_files_came_from(digits: Path) -> None:
    origin = json.loads((digits.parent / "raw" / "origin.json").read_text())
    assert origin["source"] == "Python package sklearn.datasets.data"
