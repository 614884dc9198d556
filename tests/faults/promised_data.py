"""What provokes the promised refusals of the readers and writers of data; see test_promises.py."""

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save as dump_arrays

import formats
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data import (
    fetching,
    image_files,
    image_folders,
    inputs,
    origin,
    packing,
    prepared,
    readable,
    sealed,
    sources,
    splits,
    whole_images,
)
from creditflow.data.dataset import ImageFiles
from creditflow.data.downloads import NotAvailableError
from creditflow.data.formats import archives, cifar, gz, idx, lists, mat, medmnist, npz
from creditflow.data.settings import InputSettings, SplitSettings

Provoke = Callable[[Path], object]

#: What is raised, and what provokes it, each with words that the message must have, if it stands in a pair.
Promised = tuple[type[Exception] | tuple[type[Exception], ...], Sequence[Provoke | tuple[Provoke, str]]]


def written(path: Path, content: bytes | str = b"nonsense") -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


SPLIT = np.zeros((4, 1, 2, 2), np.uint8), np.array([0, 1, 0, 1])


def a_dataset(folder: Path) -> Path:
    prepared.save_prepared(folder / "p", {"train": SPLIT, "test": SPLIT}, ["a", "b"])
    return folder / "p"


def flipped(path: Path, place: int) -> Path:
    """Changes a bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    return written(path, bytes(content))


def renamed_class(path: Path) -> Path:
    """Gives a class of a prepared dataset another name."""
    content = path.read_bytes()
    assert content.count(b'[\\"a\\"') == 1
    return written(path, content.replace(b'[\\"a\\"', b'[\\"c\\"'))


def facts(path: Path) -> Any:
    return SimpleNamespace(metadata=lambda: {"creditflow": path.read_text(encoding="utf-8")})


def image(folder: Path, **options: Any) -> Path:
    Image.new("RGB", (9, 9), (1, 2, 3)).save(folder / "i.png", "PNG", **options)
    return folder / "i.png"


def small_gif(folder: Path) -> object:
    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "GIF")
    content = buffer.getvalue()
    wide = written(folder / "i.gif", content[:6] + b"\x20\x00\x20\x00" + content[10:])
    with Image.open(wide) as opened:
        return whole_images.check_canvas(opened)


def short_jpeg(folder: Path) -> object:
    content = formats.noise(64)
    path = written(folder / "i.jpg", content[: len(content) // 2] + b"\xff\xd9")
    with Image.open(path) as opened:
        opened.load()
        return whole_images.check_whole(opened, path)


def decoded(path: Path) -> object:
    return inputs.Decoder(files_of(path.parent, path.name), InputSettings(size=8))(torch.tensor([0]))


def read_wrongly(folder: Path) -> None:
    with sealed.reading(written(folder / "x"), "has no codes", "encode again"):
        raise ValueError("it is cut\nand that shows twice")


def a_folder(place: Path, **origin_facts: Any) -> Path:
    return written(place / "origin.json", json.dumps(origin_facts)).parent


def damaged(folder: Path) -> Path:
    written(folder / "x")
    return a_folder(folder, checksums={"x": "0" * 64})


def files_of(folder: Path, *names: str) -> ImageFiles:
    return ImageFiles(folder, list(names))


def array_file(name: str, **arrays: Any) -> Provoke:
    """Writes MedMNIST's file with other arrays and reads it."""
    content = formats.pathmnist(**arrays)[0]["pathmnist.npz"]
    return lambda f: medmnist.read_medmnist(written(f / name, content), (28, 28, 3), 1)


BATCH = formats.tar({"batch": formats.python2_pickle({b"labels": [1], b"data": np.zeros((2, 3072), np.uint8)})})
ARCHIVE = formats.tar({"a": b"x"}, formats.link("l", "/etc/passwd"))
LISTED = {"train": ["a", "b"], "test": ["b"]}


def classes(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).mkdir()
    return folder


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz_array(folder: Path, content: bytes, name: str = "a") -> object:
    with zipfile.ZipFile(written(folder / "x", formats.zipped({"a.npy": content}))) as archive:
        return npz.read_array(archive, name, 1000)


class Nowhere:
    """A source that has nothing."""

    def __str__(self) -> str:
        return "nowhere"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        raise NotAvailableError("there is nothing")


def fetched(folder: Path) -> object:
    (folder / "raw").mkdir()
    return fetching.fetch("toy", {"x": "0" * 64}, [Nowhere()], [folder], folder / "raw")


DATA: dict[str, Promised] = {
    "data.fetching.fetch": (UserError, [fetched, lambda f: (written(f / "x"), fetched(f))]),
    "data.fetching.note_folder": (
        UserError,
        [lambda f: fetching.note_folder(f / "absent", None, f), lambda f: fetching.note_folder(f, {"test": 2.0}, f)],
    ),
    "data.image_folders.look_at": (
        UserError,
        [
            lambda f: image_folders.look_at(f / "absent", None),
            lambda f: image_folders.look_at(f, None),
            lambda f: image_folders.look_at(f, SplitSettings(test=0.5)),
            lambda f: image_folders.look_at(classes(f, "a", "b"), SplitSettings(test=0.5)),
        ],
    ),
    "data.image_folders.images_by_class": (
        UserError,
        [
            lambda f: image_folders.images_by_class(f / "absent"),
            image_folders.images_by_class,
            lambda f: image_folders.images_by_class(classes(f, "train", "test")),
        ],
    ),
    "data.packing.packed": (UserError, [lambda f: packing.packed({"train": (files_of(f, "absent"), SPLIT[1][:1])})]),
    "data.formats.npz.read_array": (
        (KeyError, ValueError),
        [
            lambda f: npz_array(f, b"", "b"),
            lambda f: npz_array(f, b"nonsense"),
            lambda f: npz_array(f, saved(np.zeros(9))[:-1]),
            lambda f: npz_array(f, saved(np.zeros(999))),
            lambda f: npz_array(f, saved(np.array([{}]))),
        ],
    ),
    "data.formats.archives.read_members": (
        UserError,
        [
            lambda f: archives.read_members(written(f / "x"), ["a"]),
            lambda f: archives.read_members(written(f / "x", ARCHIVE), ["b"]),
            lambda f: archives.read_members(written(f / "x", ARCHIVE), ["l"]),
            lambda f: archives.read_members(f, ["a"]),
        ],
    ),
    "data.formats.archives.unpack": (
        UserError,
        [
            lambda f: archives.unpack(written(f / "x"), f / "out", ["a"]),
            lambda f: archives.unpack(written(f / "x", formats.zipped({"../a": b""})), f / "out", ["a"]),
        ],
    ),
    "data.formats.cifar.read_splits": (
        UserError,
        [
            lambda f: cifar.read_splits(written(f / "x", BATCH), {"train": ["absent"]}, b"labels"),
            lambda f: cifar.read_splits(written(f / "x", BATCH), {"train": ["batch"]}, b"labels"),
            lambda f: cifar.read_splits(written(f / "x", formats.tar({"batch": b"x"})), {"train": ["batch"]}, b"l"),
        ],
    ),
    "data.formats.cifar.read_names": (
        UserError,
        [lambda f: cifar.read_names(written(f / "x", BATCH), "batch", b"labels")],
    ),
    "data.formats.gz.decompressed": (
        gz.ExpansionError,
        [
            lambda f: list(gz.decompressed([gzip.compress(b"x" * 999)[:-9]], 10_000)),
            lambda f: list(gz.decompressed([gzip.compress(b"x" * 999)], 10)),
        ],
    ),
    "data.formats.idx.read_idx": (
        UserError,
        [
            lambda f: idx.read_idx(f / "absent"),
            lambda f: idx.read_idx(written(f / "x")),
            lambda f: idx.read_idx(written(f / "x", formats.idx(np.zeros((2, 3)))[:-1])),
            lambda f: idx.read_idx(written(f / "x", b"\x1f\x8b" + bytes(9))),
        ],
    ),
    "data.formats.idx.read_mnist_like": (
        UserError,
        [
            idx.read_mnist_like,
            lambda f: (
                formats.write(f, formats.mnist(train_images=np.zeros((3, 4)))[0]),
                idx.read_mnist_like(f, ".gz"),
            ),
        ],
    ),
    "data.formats.lists.read_list": (
        UserError,
        [lambda f: lists.read_list(written(f / "l", "a.jpg 0 1\na.jpg 2\n"), 2), lambda f: lists.read_list(f, 2)],
    ),
    "data.formats.lists.check_disjoint": (UserError, [lambda f: lists.check_disjoint(LISTED, f)]),
    "data.formats.mat.read_mat": (
        UserError,
        [
            lambda f: mat.read_mat(written(f / "x"), ["X"]),
            lambda f: mat.read_mat(written(f / "x", formats.svhn()[0]["test_32x32.mat"]), ["Z"]),
        ],
    ),
    "data.formats.medmnist.read_medmnist": (
        UserError,
        [
            lambda f: medmnist.read_medmnist(written(f / "x"), (28, 28), 1),
            array_file("x", train_images=None),
            array_file("x", train_images=np.zeros((12, 28, 28), np.uint8)),
        ],
    ),
    "data.image_files.read_image": (
        UserError,
        [
            lambda f: image_files.read_image(f / "absent", "RGB", 8),
            lambda f: image_files.read_image(f, "RGB", 8),
            lambda f: image_files.read_image(written(f / "x"), "RGB", 8),
            lambda f: image_files.read_image(image(f, transparency=(1, 2, 3)), "RGB", 8),
        ],
    ),
    "data.inputs.to_input": (
        UserError,
        [lambda f: inputs.to_input(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), InputSettings(channels=1))],
    ),
    "data.inputs.decode": (UserError, [lambda f: inputs.decode(written(f / "x"), InputSettings(size=8))]),
    "data.inputs.Decoder.__call__": (
        UserError,
        [
            (lambda f: decoded(written(f / "x.png")), "x.png cannot be read as an image"),
            (lambda f: decoded(f / "absent.png"), "replace it"),
        ],
    ),
    "data.origin.check_origin": (
        UserError,
        [
            lambda f: origin.check_origin(a_folder(f, checksums=[]), "toy", {"x": "0"}),
            lambda f: origin.check_origin(written(f / "origin.json").parent, "toy", {}),
            (
                lambda f: origin.check_origin(damaged(f), "toy", {"x": "0" * 64}),
                "is damaged or belongs to another dataset: its checksum",
            ),
        ],
    ),
    "data.prepared.save_prepared": (
        UserError,
        [
            lambda f: prepared.save_prepared(f / "p", {"train": SPLIT}, ["a"]),
            lambda f: prepared.save_prepared(f / "p", {"train": (files_of(f, "a"), SPLIT[1][:1])}, ["a", "b"]),
        ],
    ),
    "data.prepared.load_prepared": (
        UserError,
        [
            lambda f: prepared.load_prepared(f / "absent", "train"),
            lambda f: prepared.load_prepared(written(f / "x"), "train"),
            lambda f: prepared.load_prepared(a_dataset(f), "database"),
            lambda f: prepared.load_prepared(a_dataset(f), "train", [7]),
            (
                lambda f: prepared.load_prepared(flipped(a_dataset(f), -5), "train"),
                "is not a prepared dataset with a 'train' split (its content is not what was written)",
            ),
            lambda f: prepared.load_prepared(written(f / "x", dump_arrays({"train_images": np.zeros(3)})), "train"),
        ],
    ),
    "data.prepared.read_facts": (
        UserError,
        [
            lambda f: prepared.read_facts(written(f / "x")),
            (
                lambda f: prepared.read_facts(renamed_class(a_dataset(f))),
                "(it has no seal, or its seal is not that of its content)",
            ),
        ],
    ),
    "data.readable.check_share": (
        UserError,
        [lambda f: readable.check_share("toy", "train", 1, {"a.jpg": "cut"}, 0.1)],
    ),
    "data.sealed.facts_of": (
        ValueError,
        [
            lambda f: sealed.facts_of(facts(written(f / "x", '{"a": 1}'))),
            lambda f: sealed.facts_of(facts(written(f / "x", json.dumps(files.seal({"a": 1}) | {"a": 2})))),
        ],
    ),
    "data.sealed.check_tensors": (
        ValueError,
        [lambda f: sealed.check_tensors({"a": torch.zeros(2)}, {"sha256": {"a": "0" * 64}})],
    ),
    "data.sealed.reading": (
        UserError,
        [(read_wrongly, "x has no codes (it is cut and that shows twice); move it away and encode again")],
    ),
    "data.sources.Source.deliver": (
        NotAvailableError,
        [
            lambda f: sources.PackageFile("sklearn.datasets.data").deliver("absent", "0" * 64, f / "x"),
            lambda f: sources.PackageFile("not_installed").deliver("digits.csv", "0" * 64, f / "x"),
            lambda f: sources.UserFolder("toy", ["a"], "its authors").deliver("a", "0" * 64, f / "x"),
        ],
    ),
    "data.sources.receive": (
        NotAvailableError,
        [
            lambda f: sources.receive(io.BytesIO(b"other"), "0" * 64, f / "x", "a server"),
            lambda f: sources.receive(io.BytesIO(gzip.compress(b"x" * 99)[:-5]), "0" * 64, f / "x", "a server"),
        ],
    ),
    "data.sources.UserFolder.located": (
        UserError,
        [
            lambda f: sources.UserFolder("toy", ["a"], "its authors").located(f),
            lambda f: sources.UserFolder("toy", ["a"], "its authors").located(a_folder(f, folder=str(f))),
            lambda f: sources.UserFolder("toy", ["a"], "its authors").located(a_folder(f, folder=3)),
        ],
    ),
    "data.splits.check_splits": (
        UserError,
        [
            lambda f: splits.check_splits({"train": (SPLIT[0], SPLIT[1][:3])}, ["a", "b"]),
            lambda f: splits.check_splits({"train": SPLIT, "test": (np.zeros((4, 3, 2, 2), np.uint8), SPLIT[1])}, "ab"),
        ],
    ),
    "data.splits.check_arrays": (
        UserError,
        [
            lambda f: splits.check_arrays("here", SPLIT[0].astype(float), SPLIT[1], 2),
            lambda f: splits.check_arrays("here", SPLIT[0], SPLIT[1] + 5, 2),
        ],
    ),
    "data.splits.check_stored": (
        ValueError,
        [
            lambda f: splits.check_stored(*SPLIT, {"class_names": ["a"], "mean": [0.0], "std": [1.0]}),
            lambda f: splits.check_stored(*SPLIT, {"class_names": ["a", "b"], "mean": [0.0], "std": [0.0]}),
        ],
    ),
    "data.whole_images.check_canvas": (ValueError, [small_gif]),
    "data.whole_images.check_whole": (ValueError, [short_jpeg]),
}
