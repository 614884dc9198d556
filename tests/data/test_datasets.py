"""Every dataset, fetched and prepared by the stages themselves from tiny files in its true format."""

import dataclasses
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import scipy.io
import torch
from PIL import Image
from safetensors.numpy import save
from sklearn.datasets import load_digits

import fetch as fetch_stage
import prepare as prepare_stage
from creditflow.compute.torchvision_import import torchvision
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.formats import cifar
from creditflow.data.formats.archives import read_members, unpack
from creditflow.data.formats.idx import read_idx
from creditflow.data.formats.lists import locate
from creditflow.data.formats.mat import read_mat
from creditflow.data.inputs import InputSettings
from creditflow.data.prepared import Subset, channel_statistics, check_splits, load_prepared, save_prepared
from creditflow.data.sources import DownloadEach, NotAvailableError, receive
from helpers import stage

RNG = np.random.default_rng(0)


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


class Stages:
    """Runs the stages in this process; published checksums give way to those of the tiny files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.here = folder / "here"
        self.here.mkdir()

    def fetch(self, name: str, files: Mapping[str, bytes] | None = None) -> Path:
        """Writes archives into a search path, and fetches them."""
        if files is not None:
            for file, content in files.items():
                (self.here / file).write_bytes(content)
            self.change(name, checksums={file: md5(content) for file, content in files.items()})
        raw = self.folder / "raw"
        self.run(fetch_stage.main, "--dataset", name, "--search-path", self.here, "--output", raw)
        return raw

    def change(self, name: str, **changes: Any) -> None:
        module = plugins.load("dataset", name)
        self.monkeypatch.setattr(module, "DATASET", dataclasses.replace(module.DATASET, **changes))

    def prepare(self, name: str, *options: str) -> Path:
        path = self.folder / "prepared.safetensors"
        self.run(prepare_stage.main, "--dataset", name, "--raw", self.folder / "raw", "--output", path, *options)
        return path

    def run(self, main: Callable[[], None], *arguments: str | Path) -> None:
        self.monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
        main()

    def both(self, name: str, files: Mapping[str, bytes] | None = None) -> Path:
        self.fetch(name, files)
        return self.prepare(name)


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(tmp_path, monkeypatch)


def facts(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["creditflow"])


def everything(subset: Subset) -> tuple[torch.Tensor, torch.Tensor]:
    return subset.batch(torch.arange(len(subset.labels)))


def check_arrays(path: Path, expected: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Checks stored images and labels, and batches of another size."""
    for split, (images, labels) in expected.items():
        subset = load_prepared(path, split)
        np.testing.assert_array_equal(subset.images, images)
        np.testing.assert_array_equal(subset.labels, labels)
        assert not subset.multi_label
        larger = load_prepared(path, split, inputs=InputSettings(size=40, channels=3))
        x, y = everything(larger)
        assert x.shape == (len(images), 3, 40, 40)
        assert torch.equal(y, torch.from_numpy(labels).long())
        np.testing.assert_allclose(x.mean((2, 3)).numpy().mean(1), images.mean((1, 2, 3)) / 255, atol=0.02)
    np.testing.assert_allclose(load_prepared(path, "train").mean, expected["train"][0].mean((0, 2, 3)) / 255)


def colour(index: int) -> tuple[int, int, int]:
    return 40 + 37 * index % 200, 30 + 71 * index % 190, 20 + 13 * index % 210


def jpeg(index: int = 0, size: tuple[int, int] = (20, 14), mode: str = "RGB") -> bytes:
    """An image of one colour, which tells which it is."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour(index)).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def check_colours(subset: Subset, indices: list[int]) -> None:
    """Checks that images are those written for the indices."""
    x, _ = everything(subset)
    expected = torch.tensor([colour(index) for index in indices]) / 255
    torch.testing.assert_close(x.mean((2, 3)), expected, atol=0.02, rtol=0)
    one_by_one = [images for images, _ in subset.batches(torch.arange(len(subset.labels)).split(2))]
    assert torch.equal(torch.cat(one_by_one), x)


def write(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def tar(members: Mapping[str, bytes], *others: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info in others:
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(members: Mapping[str, bytes | str], *others: zipfile.ZipInfo) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for info in others:
            archive.writestr(info, "target")
    return buffer.getvalue()


# --- the formats -------------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes())


def mnist(**changes: np.ndarray) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    files, expected = {}, {}
    for split, prefix, n in (("train", "train", 12), ("test", "t10k", 10)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        expected[split] = images[:, np.newaxis], labels
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(changes.get(f"{split}_images", images))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(changes.get(f"{split}_labels", labels))
    return files, expected


def python2_pickle(value: Any) -> bytes:
    """Pickles as Python 2 did, protocol 2: byte strings everywhere, and arrays by the names that NumPy had then."""
    return b"\x80\x02" + _python2(value) + b"."


def _python2(value: Any) -> bytes:
    match value:
        case bytes() if len(value) < 256:
            return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value  # BINSTRING
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case None:
            return b"N"
        case tuple():
            return b"(" + b"".join(map(_python2, value)) + b"t"
        case list():
            return b"](" + b"".join(map(_python2, value)) + b"e"
        case dict():
            return b"}(" + b"".join(_python2(key) + _python2(item) for key, item in value.items()) + b"u"
        case np.ndarray():
            kind = value.dtype.str.lstrip("|<").encode()
            dtype = (
                b"cnumpy\ndtype\n"
                + _python2((kind, 0, 1))
                + b"R"
                + _python2((3, b"|", None, None, None, -1, -1, 0))
                + b"b"
            )
            array = (
                b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + _python2((0,)) + _python2(b"b") + b"tR"
            )
            state = (
                b"(" + _python2(1) + _python2(value.shape) + dtype + _python2(False) + _python2(value.tobytes()) + b"t"
            )
            return array + state + b"b"
    raise TypeError(value)


CIFAR10 = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]


def cifar10(
    change: Callable[[dict[bytes, Any]], Any] = lambda batch: batch,
    dump: Callable[[Any], bytes] = python2_pickle,
    leave_out: str = "",
) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The archive, whose second batch `change` may spoil, and what is in it."""
    members, images, labels = {"cifar-10-batches-py/readme.html": b"<html>"}, [], []
    for number, name in enumerate(CIFAR10):
        data = RNG.integers(0, 256, (10, 3072), dtype=np.uint8)
        batch = {
            b"batch_label": name.encode(),
            b"labels": [(number + i) % 10 for i in range(10)],
            b"data": data,
            b"filenames": [b"a"] * 10,
        }
        images.append(data.reshape(-1, 3, 32, 32)), labels.append(np.array(batch[b"labels"]))
        members[f"cifar-10-batches-py/{name}"] = dump(change(batch) if number == 1 else batch)
    members.pop(f"cifar-10-batches-py/{leave_out}", None)
    expected = {"train": (np.concatenate(images[:5]), np.concatenate(labels[:5])), "test": (images[5], labels[5])}
    return {"cifar-10-python.tar.gz": tar(members)}, expected


def cifar100(
    n_names: int = 100, n_labels: int = 100
) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    members, expected = {}, {}
    for split, n in (("train", 120), ("test", 100)):
        data = RNG.integers(0, 256, (n, 3072), dtype=np.uint8)
        fine = [index * 3 % n_labels for index in range(n)]
        members[f"cifar-100-python/{split}"] = python2_pickle(
            {b"data": data, b"fine_labels": fine, b"coarse_labels": [0] * n}
        )
        expected[split] = data.reshape(-1, 3, 32, 32), np.array(fine)
    names = [f"name {number}".encode() for number in range(n_names)]
    members["cifar-100-python/meta"] = python2_pickle({b"fine_label_names": names, b"coarse_label_names": [b"all"]})
    return {"cifar-100-python.tar.gz": tar(members)}, expected


def svhn(
    change: Callable[[dict[str, Any]], Any] = lambda content: None,
) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    files, expected = {}, {}
    for split, n in (("train", 11), ("test", 10)):
        pictures = RNG.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        digits = np.arange(n) % 10
        content = {"X": pictures, "y": np.where(digits == 0, 10, digits).astype(np.uint8)[:, np.newaxis]}
        change(content)
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, content, do_compression=True)
        files[f"{split}_32x32.mat"] = buffer.getvalue()
        expected[split] = pictures.transpose(3, 2, 0, 1), digits
    return files, expected


def stl10(
    change: Callable[[dict[str, bytes]], Any] = lambda members: None,
) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    members, expected = {}, {}
    for split, n in (("test", 10), ("train", 12)):
        pictures = RNG.integers(0, 256, (n, 3, 96, 96), dtype=np.uint8)
        labels = np.arange(n) % 10
        members[f"stl10_binary/{split}_X.bin"] = pictures.transpose(0, 1, 3, 2).tobytes()
        members[f"stl10_binary/{split}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
        expected[split] = pictures, labels
    change(members)
    return {"stl10_binary.tar.gz": tar(members | {"stl10_binary/unlabeled_X.bin": bytes(3 * 96 * 96)})}, expected


def medmnist(
    name: str, pictures: tuple[int, ...], labels: Callable[[int], np.ndarray], **change: Any
) -> dict[str, bytes]:
    """An archive like MedMNIST's: three splits of images and labels in one .npz."""
    content: dict[str, Any] = {}
    for split, n in (("train", 12), ("val", 3), ("test", 10)):
        content[f"{split}_images"] = RNG.integers(0, 256, (n, *pictures), dtype=np.uint8)
        content[f"{split}_labels"] = labels(n)
    content = {key: value for key, value in (content | change).items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return {f"{name}.npz": buffer.getvalue()}


def pathmnist(**change: Any) -> tuple[dict[str, bytes], dict[str, tuple[np.ndarray, np.ndarray]]]:
    files = medmnist("pathmnist", (28, 28, 3), lambda n: (np.arange(n) % 9).astype(np.uint8)[:, None], **change)
    if change:
        return files, {}
    with np.load(io.BytesIO(files["pathmnist.npz"])) as content:
        expected = {
            split: (content[f"{split}_images"].transpose(0, 3, 1, 2), content[f"{split}_labels"][:, 0])
            for split in ("train", "test")
        }
    return files, expected


def findings(n: int) -> np.ndarray:
    """Labels of ChestMNIST: two for each image, but none for the first two."""
    found = np.zeros((n, 14), dtype=np.uint8)
    for index in range(2, n):
        found[index, [index % 14, (index + 5) % 14]] = 1
    return found


COCO_NAMES = plugins.load("dataset", "coco").DATASET.class_names
#: Category ids of 2014 have gaps: 80 of 1..90.
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def coco_shows(image: int) -> list[int]:
    """Labels of an image: two, but all for the last of a split."""
    return list(range(80)) if image in (5, 12) else [image, image + 10] if image else []


def coco(change: Callable[[dict[str, Any]], Any] = lambda content: None) -> dict[str, bytes | str]:
    """Six training images, of which the first shows nothing, and three test images; see `coco_shows`."""
    files: dict[str, bytes | str] = {}
    for part, first, n in (("train2014", 0, 6), ("val2014", 10, 3)):
        numbers = list(range(first, first + n))
        annotations = [
            {"image_id": 500 - image, "category_id": COCO_IDS[label], "iscrowd": 0, "segmentation": [[1.5, 2.0]]}
            for image in numbers
            for label in coco_shows(image) * 2
        ]
        content = {
            "info": {"year": 2014},
            "images": [{"id": 500 - image, "file_name": f"COCO_{part}_{image:012d}.jpg"} for image in numbers],
            "categories": [{"id": number, "name": name} for number, name in zip(COCO_IDS, COCO_NAMES, strict=True)][
                ::-1
            ],
            "annotations": annotations,
        }
        change(content)
        files[f"annotations/instances_{part}.json"] = json.dumps(content)
        files |= {f"{part}/COCO_{part}_{image:012d}.jpg": jpeg(image) for image in numbers}
    return files


def check_coco(path: Path) -> None:
    for split, images in (("train", [5, 4, 3, 2, 1]), ("test", [12, 11, 10])):  # in the order of their ids
        subset = load_prepared(path, split, inputs=InputSettings(size=16))
        check_colours(subset, images)
        assert subset.multi_label and subset.labels.shape == (len(images), 80)
        assert [row.nonzero().flatten().tolist() for row in subset.labels] == [coco_shows(image) for image in images]
        assert subset.class_names[:2] == ("person", "bicycle")


def row(*labels: int, n: int) -> str:
    return " ".join("1" if label in labels else "0" for label in range(n))


def nus_wide_shows(image: int) -> list[int]:
    """Labels of an image: two, but all for the last of a split."""
    return list(range(21)) if image in (3, 6) else [image, 20]


def nus_wide(train: Mapping[str, str] | None = None) -> dict[str, bytes | str]:
    """Lists, of which the training one may be another, and images."""
    lists = {
        "train": train or {f"images/{index}_a_m.jpg": row(*nus_wide_shows(index), n=21) for index in range(4)},
        "test": {f"images/{index}_b_m.jpg": row(*nus_wide_shows(index), n=21) for index in range(4, 7)},
    }
    texts = {
        f"{split}.txt": "".join(f"{name} {labels}\n" for name, labels in lines.items())
        for split, lines in lists.items()
    }
    return texts | {f"images/{index}_{'a' if index < 4 else 'b'}_m.jpg": jpeg(index) for index in range(7)}


WNIDS = [f"n{10_000_000 + 7 * index:08d}" for index in range(1000)]
PICTURES = {index: jpeg(index, mode="L" if index == 2 else "RGB") for index in range(5)}


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training image for each class of ImageNet."""
    folder = tmp_path_factory.mktemp("classes")
    write(folder, {f"{wnid}/{wnid}_{index}.JPEG": PICTURES[min(index, 4)] for index, wnid in enumerate(WNIDS)})
    return folder


def imagenet(folder: Path, classes: Path, kit: bool, **changes: Any) -> None:
    """Links to training images; four validation images: in folders of classes, or flat with the development kit."""
    folder.mkdir(exist_ok=True)
    (folder / "train").symlink_to(classes)
    files: dict[str, bytes | str] = {}
    labels = [999, 0, 5, 0]
    for number, label in enumerate(labels, 1):
        place = "val" if kit else f"val/{WNIDS[label]}"
        files[f"{place}/{changes.get('prefix', 'ILSVRC2012_val_')}{number:08d}.JPEG"] = PICTURES[number]
    if not kit:  # a class without validation images would be a damaged copy
        files |= {f"val/{wnid}/ILSVRC2012_val_{index + 100:08d}.JPEG": PICTURES[0] for index, wnid in enumerate(WNIDS)}
    else:
        files["ILSVRC2012_devkit_t12/data/meta.mat"] = changes.get("meta", meta_mat())
        truth = changes.get("truth", "".join(f"{kit_number(label)}\n" for label in labels))
        files["ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"] = truth
    write(folder, files)


def kit_number(label: int) -> int:
    """The development kit numbers classes otherwise than by WordNet id, from 1."""
    return (label * 7) % 1000 + 1


def meta_mat(wnids: list[str] = WNIDS) -> bytes:
    """As in the kit: an array of structs, inner nodes of WordNet behind the classes."""
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(np.float64(kit_number(label)), wnid, "some, words", np.float64(0)) for label, wnid in enumerate(wnids)]
    rows += [(np.float64(1001), "n00001740", "entity", np.float64(3))]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=kinds)[:, np.newaxis]}, do_compression=True)
    return buffer.getvalue()


TEST_100 = [3, 0, *range(99, 3, -1), 1, 2]


def imagenet100(line: Callable[[int], str] = lambda label: row(label, n=100)) -> dict[str, str]:
    """HashNet's lists, with the folders of their author."""
    begin = "/home/someone/dataset/imagenet"
    train = "".join(f"{begin}/image/{WNIDS[label]}_{label}.JPEG {line(label)}\n" for label in range(100))
    test = "".join(f"{begin}/val_image/ILSVRC2012_val_{label + 1:08d}.JPEG {line(label)}\n" for label in TEST_100)
    return {"train.txt": train, "test.txt": test}


# --- what is published -------------------------------------------------------------------------------------------------------


def test_checksums_addresses_and_names_are_torchvisions() -> None:
    here = {name: plugins.load("dataset", name).DATASET for name in plugins.names("dataset")}
    there = torchvision.datasets
    mirrors = [address.rstrip("/") for address in there.MNIST.mirrors]
    assert list(here["mnist"].sources[0].addresses()) == mirrors
    assert here["mnist"].checksums == {name: f"md5:{value}" for name, value in there.MNIST.resources}
    published = {"svhn": [there.SVHN.split_list[split] for split in ("train", "test")]}
    for name, twin in (("cifar10", there.CIFAR10), ("cifar100", there.CIFAR100), ("stl10", there.STL10)):
        published[name] = [(twin.url, twin.filename, twin.tgz_md5)]
    for name, files in published.items():
        (address,) = here[name].sources[0].addresses()
        assert [f"{address}/{file}" for file in here[name].checksums] == [url for url, _, _ in files]
        assert here[name].checksums == {file: f"md5:{value}" for _, file, value in files}
    categories = torchvision.models._meta._COCO_CATEGORIES
    assert [name for name in categories if name not in ("__background__", "N/A")] == list(here["coco"].class_names)
    assert [index for index, name in enumerate(categories) if name not in ("__background__", "N/A")] == COCO_IDS


def test_what_the_workflow_reads_without_importing_is_true() -> None:
    for name in plugins.names("dataset"):
        assert (
            plugins.declared("dataset", name, "multi_label", False) == plugins.load("dataset", name).DATASET.multi_label
        )


# --- archives ----------------------------------------------------------------------------------------------------------------

ARCHIVES = {
    "mnist": mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "stl10": stl10,
    "pathmnist": pathmnist,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_are_fetched_and_prepared(name: str, stages: Stages) -> None:
    files, expected = ARCHIVES[name]()
    raw = stages.fetch(name, files)
    assert {path.name: path.read_bytes() for path in raw.iterdir() if path.name != "origin.json"} == files
    origin = json.loads((raw / "origin.json").read_text())
    assert origin == {
        "source": f"folder {stages.here}",
        "checksums": {file: md5(content) for file, content in files.items()},
    }
    check_arrays(stages.prepare(name), expected)


def test_chestmnist_has_a_label_for_images_without_findings(stages: Stages) -> None:
    files = medmnist("chestmnist", (28, 28), findings)
    path = stages.both("chestmnist", files)
    with np.load(io.BytesIO(files["chestmnist.npz"])) as content:
        for split, n in (("train", 12), ("test", 10)):
            subset = load_prepared(path, split)
            assert subset.multi_label and len(subset.class_names) == 15
            np.testing.assert_array_equal(subset.images, content[f"{split}_images"][:, None])
            np.testing.assert_array_equal(subset.labels[:, :14], findings(n))
            assert subset.labels[:, 14].tolist() == [1, 1] + [0] * (n - 2)


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("damage", ["truncated", "changed", "another"])
def test_a_damaged_archive_ends_in_one_line(name: str, damage: str, stages: Stages) -> None:
    files = ARCHIVES[name]()[0]
    victim, content = list(files.items())[-1]
    middle = len(content) // 2
    spoilt = {
        "truncated": content[:middle],
        "changed": content[:middle] + b"X" + content[middle + 1 :],
        "another": b"<html>" * 99,
    }[damage]
    assert spoilt != content
    stages.fetch(name, files)
    (stages.here / victim).write_bytes(spoilt)
    with pytest.raises(UserError, match=rf"{name}: .*{victim} is truncated or corrupt .*MD5.*; replace or remove it"):
        stages.fetch(name)
    assert sorted(path.name for path in (stages.folder / "raw").iterdir()) == sorted([*files, "origin.json"]), (
        "the former stays"
    )

    # The readers take care of themselves, too: MD5 finds damage, but no malice.
    if damage != "changed":
        stages.fetch(name, files | {victim: spoilt})
        with pytest.raises(UserError, match=victim) as caught:
            stages.prepare(name)
        assert "\n" not in str(caught.value)
    assert not list(stages.folder.glob("*.safetensors"))


def without(key: bytes) -> Callable[[dict[bytes, Any]], dict[bytes, Any]]:
    return lambda batch: {name: value for name, value in batch.items() if name != key}


def cut(name: str, n: int) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({f"stl10_binary/{name}": members[f"stl10_binary/{name}"][n:]})


WRONG = {
    "mnist one label short": ("mnist", lambda: mnist(train_labels=np.zeros(11)), "12 images, but labels of shape"),
    "mnist label 10": ("mnist", lambda: mnist(test_labels=np.arange(1, 11)), r"labels must lie in 0\.\.9, not 1\.\.10"),
    "mnist flat images": ("mnist", lambda: mnist(test_images=np.zeros((10, 784))), r"t10k images of shape \(10, 784\)"),
    "mnist a number": ("mnist", lambda: mnist(test_labels=np.array(3)), r"labels of shape \(\)"),
    "cifar10 no labels": (
        "cifar10",
        lambda: cifar10(without(b"labels")),
        "data_batch_2 is not what CIFAR has.*'labels'",
    ),
    "cifar10 no data": (
        "cifar10",
        lambda: cifar10(without(b"data")),
        "data_batch_2 is not what CIFAR has.*no array 'data'",
    ),
    "cifar10 label 10": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [10] * 10}),
        r"labels must lie in 0\.\.9, not 0\.\.10",
    ),
    "cifar10 label -1": ("cifar10", lambda: cifar10(lambda b: b | {b"labels": [-1] * 10}), r"not -1\.\.9"),
    "cifar10 label nan": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [float("nan")] * 10}),
        "no list of numbers 'labels'",
    ),
    "cifar10 3 labels": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [1] * 3}),
        r"shape \(10, 3072\) and 3 labels",
    ),
    "cifar10 grey": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"data": np.zeros((10, 1024), np.uint8)}),
        r"shape \(10, 1024\)",
    ),
    "cifar10 floats": ("cifar10", lambda: cifar10(lambda b: b | {b"data": np.zeros((10, 3072))}), "an array of b'f8'"),
    "cifar10 a list": ("cifar10", lambda: cifar10(lambda b: [1, 2]), "it is a list"),
    "cifar10 one batch short": (
        "cifar10",
        lambda: cifar10(leave_out="data_batch_4"),
        "does not contain cifar-10-batches-py/data_batch_4",
    ),
    "cifar100 as cifar10": (
        "cifar100",
        lambda: ({"cifar-100-python.tar.gz": cifar10()[0]["cifar-10-python.tar.gz"]}, {}),
        "does not contain",
    ),
    "cifar100 99 names": ("cifar100", lambda: cifar100(n_names=99), "has 99 fine labels, not 100"),
    "cifar100 label 102": ("cifar100", lambda: cifar100(n_labels=103), r"labels must lie in 0\.\.99"),
    "pathmnist grey": (
        "pathmnist",
        lambda: pathmnist(test_images=np.zeros((10, 28, 28), np.uint8)),
        r"of shape \(10, 28, 28\)",
    ),
    "pathmnist no test": ("pathmnist", lambda: pathmnist(test_labels=None), "lacks a split"),
    "pathmnist label 9": (
        "pathmnist",
        lambda: pathmnist(test_labels=np.full((10, 1), 9)),
        r"labels must lie in 0\.\.8, not 9\.\.9",
    ),
    "pathmnist objects": (
        "pathmnist",
        lambda: pathmnist(test_labels=np.array([None])),
        "Object arrays cannot be loaded",
    ),
    "svhn grey": ("svhn", lambda: svhn(lambda c: c.update(X=c["X"][:, :, :1])), r"X of shape \(32, 32, 1, 11\)"),
    "svhn floats": ("svhn", lambda: svhn(lambda c: c.update(X=c["X"] / 255)), "are not SVHN's"),
    "svhn label 11": (
        "svhn",
        lambda: svhn(lambda c: c.update(y=c["y"] + 1)),
        r"labels must lie in 1\.\.10, not 2\.\.11",
    ),
    "svhn label nan": ("svhn", lambda: svhn(lambda c: c.update(y=c["y"] * np.nan)), "are not SVHN's"),
    "svhn labels short": ("svhn", lambda: svhn(lambda c: c.update(y=c["y"][1:])), r"y of shape \(10, 1\)"),
    "svhn no y": ("svhn", lambda: svhn(lambda c: c.pop("y")), "train_32x32.mat has no y"),
    "stl10 label 0": (
        "stl10",
        lambda: stl10(lambda m: m.update({"stl10_binary/test_y.bin": bytes(range(10))})),
        "its test images or labels",
    ),
    "stl10 label 11": (
        "stl10",
        lambda: stl10(lambda m: m.update({"stl10_binary/test_y.bin": bytes(range(2, 12))})),
        "its test images or labels",
    ),
    "stl10 a pixel short": (
        "stl10",
        lambda: stl10(cut("train_X.bin", 1)),
        "its train images or labels are not STL-10's",
    ),
    "stl10 a label short": (
        "stl10",
        lambda: stl10(cut("train_y.bin", 1)),
        "its train images or labels are not STL-10's",
    ),
    "stl10 no labels": (
        "stl10",
        lambda: stl10(lambda m: m.pop("stl10_binary/train_y.bin")),
        "does not contain stl10_binary/train_y.bin",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_archive_with_something_else_in_it_is_refused(case: str, stages: Stages) -> None:
    name, make, message = WRONG[case]
    stages.fetch(name, make()[0])
    with pytest.raises(UserError, match=message) as caught:
        stages.prepare(name)
    assert "\n" not in str(caught.value)
    assert not list(stages.folder.glob("*.safetensors"))


def test_cifar_may_be_pickled_by_a_newer_python(stages: Stages) -> None:
    files, expected = cifar10(dump=lambda value: pickle.dumps(value, protocol=2))
    check_arrays(stages.both("cifar10", files), expected)


class Attack:
    """Does something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ["touch {}"]),
        (eval, ["open({!r}, 'w')"]),
        (Path.touch, []),
        (np.fromfile, ["{}"]),
        (getattr, [b"", "join"]),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_does_nothing(
    function: Callable[..., Any], arguments: list[Any], protocol: int, stages: Stages
) -> None:
    mark = stages.folder / "mark"
    attack = Attack(
        function, *[word.format(str(mark)) if isinstance(word, str) else word for word in arguments or [mark]]
    )
    for spoil in (lambda batch: batch | {b"data": attack}, lambda batch: attack):
        stages.fetch("cifar10", cifar10(spoil, dump=lambda value: pickle.dumps(value, protocol=protocol))[0])
        with pytest.raises(UserError, match=r"data_batch_\d is not what CIFAR has there \(.*no CIFAR archive needs"):
            stages.prepare("cifar10")
    assert not mark.exists()


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_members_that_point_elsewhere_are_not_followed(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    deep.mkdir(parents=True)
    (tmp_path / "secret").write_bytes(b"secret")
    archive = deep / "some.tar.gz"
    archive.write_bytes(
        tar({"../evil": b"x", "/tmp/creditflow-evil": b"x", "good": b"y"}, link("bad", str(tmp_path / "secret")))
    )
    before = sorted(tmp_path.rglob("*"))
    assert read_members(archive, ["good", "../evil"]) == {"good": b"y", "../evil": b"x"}
    with pytest.raises(UserError, match="bad is not a plain file"):
        read_members(archive, ["good", "bad"])

    symlink = zipfile.ZipInfo("train/link")
    symlink.external_attr = (stat.S_IFLNK | 0o777) << 16
    for content in (
        zipped({"../evil": b"x"}),
        zipped({"train/../../evil": b"x"}),
        zipped({"/evil": b"x"}),
        zipped({}, symlink),
    ):
        archive.write_bytes(content)
        with pytest.raises(UserError, match="points out of its folder"):
            unpack(archive, deep, ["train", "..", "/evil"])
    archive.write_bytes(zipped({"train/a": b"1", "trainer/b": b"2", "other.json": b"3", "only.json": b"4"}))
    unpack(archive, deep, ["train", "only.json"])
    assert sorted(path for path in tmp_path.rglob("*") if path not in before) == [
        deep / "only.json",
        deep / "train",
        deep / "train/a",
    ]
    assert not Path("/tmp/creditflow-evil").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_files_are_read_as_scipy_writes_them(compressed: bool, tmp_path: Path) -> None:
    kinds = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
    content = {f"v{kind}": RNG.integers(0, 100, (2, 3, 4)).astype(kind) for kind in kinds}
    content |= {
        "text": "some text",
        "small": np.array([[7]], np.uint8),
        "empty": np.zeros((0, 3)),
        "other": np.array([["a", 1]], object),
    }
    structs = np.array(
        [(1.5, "one", None), (2.0, "two", None)],
        dtype=[("number", object), ("a_longer_name", object), ("inner", object)],
    )
    structs["inner"] = [{"deep": 1}, {"deep": 2}]
    scipy.io.savemat(tmp_path / "x.mat", content | {"structs": structs[:, np.newaxis]}, do_compression=compressed)
    found = dict(zip(content, read_mat(tmp_path / "x.mat", list(content)), strict=True))
    for name, value in content.items():
        if name in ("text", "other"):
            assert found[name] == (value if name == "text" else None)
        else:
            np.testing.assert_array_equal(found[name], value, strict=True)
    (rows,) = read_mat(tmp_path / "x.mat", ["structs"])
    assert [(row["number"].item(), row["a_longer_name"], row["inner"]) for row in rows] == [
        (1.5, "one", None),
        (2.0, "two", None),
    ]
    with pytest.raises(UserError, match="has no missing"):
        read_mat(tmp_path / "x.mat", ["missing"])


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Other bytes at up to eight places, mostly near the ends, where formats have their structure; sometimes cut short."""
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
        "idx": (idx(pictures), read_idx),
    }
    content, read = readers[kind]
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(200):
        path = tmp_path / "file"
        path.write_bytes(damaged(content, rng))
        try:
            read(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50
    path.write_bytes(content)
    read(path)


class Drop:
    """A stream that is never asked for everything at once."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, n: int) -> bytes:
        assert 0 < n <= 1 << 24
        n = min(n, self.left)
        self.left -= n
        return bytes(n)


def test_published_files_pass_through_in_pieces(tmp_path: Path) -> None:
    size = (40 << 20) + 5
    receive(Drop(size), md5(bytes(size)), tmp_path / "target", "here", size)
    assert (tmp_path / "target").stat().st_size == size
    with pytest.raises(NotAvailableError, match=r"its MD5 is not 0000"):
        receive(Drop(size), "md5:" + "0" * 32, tmp_path / "target", "here")
    assert not (tmp_path / "target").exists()


def test_downloads_of_published_files(stages: Stages) -> None:
    files, expected = svhn()
    write(stages.folder, {f"{number}/{name}": content for number, (name, content) in enumerate(files.items())})
    addresses = {name: (stages.folder / str(number) / name).as_uri() for number, name in enumerate(files)}
    checksums = {name: md5(content) for name, content in files.items()}
    stages.change("svhn", checksums=checksums, sources=[DownloadEach(addresses)])
    assert json.loads((stages.fetch("svhn") / "origin.json").read_text())["source"] == "download"
    check_arrays(stages.prepare("svhn"), expected)
    stages.change("svhn", sources=[DownloadEach(addresses | {"test_32x32.mat": (stages.folder / "nowhere").as_uri()})])
    with pytest.raises(
        UserError,
        match=r"svhn: no source has it .*nowhere.*; put train_32x32.mat, test_32x32.mat into a folder and name it",
    ):
        stages.fetch("svhn")


def test_published_files_by_the_scripts_themselves(tmp_path: Path) -> None:
    """A copy of the sources, in which the published checksum is another."""
    files, expected = cifar10()
    (content,) = files.values()
    shutil.copytree(Path(fetch_stage.__file__).parent, tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src/creditflow/data/datasets/cifar10.py"
    path.write_text(path.read_text().replace("md5:c58f30108f718f92721af3b95e74349a", md5(content)))
    write(tmp_path, {"here/cifar-10-python.tar.gz": content})
    for name, arguments in (
        ("fetch", ["--search-path", "here", "--output", "raw"]),
        ("prepare", ["--raw", "raw", "--output", "out"]),
    ):
        command = [sys.executable, f"src/{name}.py", "--dataset", "cifar10", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "cifar10: 50 train images\ncifar10: 10 test images\n"
    check_arrays(tmp_path / "out", expected)


# --- folders of the user's ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["here", "here/coco"])
def test_coco_in_a_folder_of_the_users(place: str, stages: Stages) -> None:
    write(stages.folder / place, coco())
    raw = stages.fetch("coco")
    assert [path.name for path in raw.iterdir()] == ["origin.json"]
    assert json.loads((raw / "origin.json").read_text())["folder"] == str(stages.folder / place)
    check_coco(stages.prepare("coco"))


def coco_archives() -> dict[str, bytes]:
    files = coco() | {"annotations/captions_train2014.json": "{}"}
    parts = {"annotations_trainval2014.zip": "annotations/", "train2014.zip": "train2014/", "val2014.zip": "val2014/"}
    return {
        name: zipped({file: content for file, content in files.items() if file.startswith(begin)})
        for name, begin in parts.items()
    }


@pytest.mark.parametrize("inside", ["", "coco/"])
def test_coco_from_its_archives(inside: str, stages: Stages) -> None:
    (stages.here / inside).mkdir(exist_ok=True)
    files = {f"{inside}{name}": content for name, content in coco_archives().items()}
    write(stages.here, files)
    stages.change("coco", checksums={Path(name).name: md5(content) for name, content in files.items()})
    raw = stages.fetch("coco")
    assert sorted(path.name for path in raw.iterdir()) == ["annotations", "origin.json", "train2014", "val2014"]
    assert sorted(path.name for path in (raw / "annotations").iterdir()) == [
        "instances_train2014.json",
        "instances_val2014.json",
    ]
    check_coco(stages.prepare("coco"))
    shutil.rmtree(raw / "val2014")
    with pytest.raises(UserError, match=rf"{raw} has lost val2014; put it back, or delete"):
        stages.prepare("coco")


def test_coco_downloaded(stages: Stages) -> None:
    files = coco_archives()
    write(stages.folder / "there", files)
    download = DownloadEach({name: (stages.folder / "there" / name).as_uri() for name in files})
    folder = plugins.load("dataset", "coco").DATASET.sources[0]
    stages.change("coco", checksums={name: md5(content) for name, content in files.items()}, sources=[folder, download])
    check_coco(stages.both("coco"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], "train2014.zip is truncated or corrupt"),
        (lambda content: b"<html>", "train2014.zip is truncated or corrupt"),
        (lambda content: content.replace(jpeg(1), jpeg(1)[:-1] + b"X"), "train2014.zip is truncated or corrupt .*CRC"),
        (lambda content: zipped({"../evil.jpg": b"x"}), "which points out of its folder"),
        (
            lambda content: zipped({"elsewhere/a.jpg": b"x"}),
            "do not contain train2014; get them from https://cocodataset.org",
        ),
    ],
)
def test_archives_of_coco_that_are_spoilt_leave_nothing(
    spoil: Callable[[bytes], bytes], message: str, stages: Stages
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number in range(6):
            archive.writestr(f"train2014/COCO_train2014_{number:012d}.jpg", jpeg(number))
    files = coco_archives() | {"train2014.zip": spoil(buffer.getvalue())}
    with pytest.raises(UserError, match=message):
        stages.fetch("coco", files)
    assert sorted(stages.folder.iterdir()) == [stages.here]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["categories"].pop(), "has 79 categories that are not the 80 of 2014"),
        (
            lambda content: content["categories"][0].update(name="dragon"),
            "has 80 categories that are not the 80 of 2014",
        ),
        (lambda content: content.pop("annotations"), "has no annotations of objects .*annotations"),
        (lambda content: content.update(images=3), "has no annotations of objects"),
        (
            lambda content: content["annotations"][0].update(image_id=1),
            "annotates an image or category 1 that it does not have",
        ),
        (
            lambda content: content["annotations"][0].update(category_id=91),
            "annotates an image or category 91 that it does not have",
        ),
        (lambda content: content["annotations"][0].update(image_id=[1]), "has no annotations of objects"),
        (lambda content: content["images"][0].update(file_name=7), "images without a file name"),
        (
            lambda content: content["images"][0].update(file_name="../../etc/passwd"),
            "is not a file name below the dataset's folder",
        ),
        (
            lambda content: content["images"][0].update(file_name="a\nb.jpg"),
            "is not a file name below the dataset's folder",
        ),
    ],
)
def test_annotations_of_coco_that_are_wrong(
    change: Callable[[dict[str, Any]], Any], message: str, stages: Stages
) -> None:
    write(stages.here, coco(change))
    stages.fetch("coco")
    with pytest.raises(UserError, match=message):
        stages.prepare("coco")


def test_the_database_of_retrieval_is_a_third_list(stages: Stages) -> None:
    listed = {f"images/{index}_a_m.jpg": row(*nus_wide_shows(index), n=21) for index in (3, 1)}
    write(
        stages.here / "nus_wide",
        nus_wide() | {"database.txt": "".join(f"{name} {labels}\n" for name, labels in listed.items())},
    )
    subset = load_prepared(stages.both("nus_wide"), "database", inputs=InputSettings(size=16, resize="crop"))
    check_colours(subset, [3, 1])
    write(stages.here / "nus_wide", {"database.txt": f"images/4_b_m.jpg {row(1, n=21)}\n"})
    with pytest.raises(
        UserError, match=r"1 images are in database\.txt and in test\.txt, for example images/4_b_m\.jpg"
    ):
        stages.prepare("nus_wide")


@pytest.mark.parametrize("text", ["", '{"images": [', "[]", "\xff"])
def test_annotations_of_coco_that_are_no_json(text: str, stages: Stages) -> None:
    write(stages.here, coco() | {"annotations/instances_train2014.json": text.encode("latin1")})
    stages.fetch("coco")
    with pytest.raises(UserError, match=r"instances_train2014\.json has no annotations of objects"):
        stages.prepare("coco")


def test_nus_wide(stages: Stages) -> None:
    write(stages.here / "nus_wide", nus_wide())
    path = stages.both("nus_wide")
    for split, images in (("train", [0, 1, 2, 3]), ("test", [4, 5, 6])):
        subset = load_prepared(path, split, inputs=InputSettings(size=16, resize="crop"))
        check_colours(subset, images)
        assert [labels.nonzero().flatten().tolist() for labels in subset.labels] == [
            nus_wide_shows(image) for image in images
        ]
        assert subset.class_names[0] == "concept 1"
    write(stages.here / "nus_wide", {"concepts.txt": "\n".join(f"name {number}" for number in range(21))})
    assert facts(stages.prepare("nus_wide"))["class_names"][20] == "name 20"
    write(stages.here / "nus_wide", {"concepts.txt": "sky\nclouds\n"})
    with pytest.raises(UserError, match="has 2 different names, not 21"):
        stages.prepare("nus_wide")


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"images/0_a_m.jpg": row(0, n=20)}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=20) + " 2"}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=20) + " nan"}, r"train.txt, line 1: not a path and 21 labels"),
        ({"images/0_a_m.jpg": row(0, n=21), "images/1_a_m.jpg": row(n=21)}, "split 'train': image 1 has no label"),
        ({"../0_a_m.jpg": row(0, n=21)}, r"line 1: the path points out of the dataset's folder"),
        ({"images/5_b_m.jpg": row(0, n=21)}, "1 images are in train.txt and in test.txt, for example images/5_b_m.jpg"),
        ({"\n": ""}, "train.txt is empty"),
    ],
)
def test_lists_that_are_wrong(train: dict[str, str], message: str, stages: Stages) -> None:
    write(stages.here, nus_wide(train))
    stages.fetch("nus_wide")
    with pytest.raises(UserError, match=message):
        stages.prepare("nus_wide")


def test_the_folder_of_the_right_name_comes_first(stages: Stages) -> None:
    """Lists have the same names in two datasets."""
    write(stages.here, nus_wide())
    write(stages.folder / "imagenet100", imagenet100())
    arguments = ["--search-path", str(stages.here), "--search-path", str(stages.folder / "imagenet100")]
    stages.run(fetch_stage.main, "--dataset", "imagenet100", *arguments, "--output", stages.folder / "raw")
    assert json.loads((stages.folder / "raw/origin.json").read_text())["folder"] == str(stages.folder / "imagenet100")


@pytest.mark.parametrize("kit", [False, True])
def test_imagenet(kit: bool, classes: Path, stages: Stages) -> None:
    imagenet(stages.here / "imagenet", classes, kit)
    path = stages.both("imagenet")
    train = load_prepared(path, "train", inputs=InputSettings(size=8))
    assert train.labels.tolist() == list(range(1000)) and train.class_names == tuple(WNIDS)
    assert train.image_shape == (3, 8, 8)
    few = dataclasses.replace(
        train, images=ImageFiles(train.images.folder, train.images.names[:2]), labels=train.labels[:2]
    )
    check_colours(few, [0, 1])
    grey = train.batch(torch.tensor([2]))[0][0]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])
    test = load_prepared(path, "test", [999, 0, 5], inputs=InputSettings(size=8))
    found = {name.rpartition("_")[2]: int(label) for name, label in zip(test.images.names, test.labels, strict=True)}
    wanted = {"00000001.JPEG": 0, "00000002.JPEG": 1, "00000003.JPEG": 2, "00000004.JPEG": 1}
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta": b"not MATLAB"}, "meta.mat is truncated or corrupt"),
        ({"meta": meta_mat()[:5000]}, "meta.mat is truncated or corrupt"),
        ({"meta": meta_mat(WNIDS[:-1])}, "is not the development kit of these classes"),
        ({"truth": "1\n2\n1001\n1\n"}, "is not the development kit of these classes .*1001"),
        ({"truth": "1\n2\nnan\n1\n"}, "is not the development kit of these classes"),
        ({"truth": "1\n2\n3\n"}, r"ILSVRC2012_val_00000004\.JPEG is not one of the 3 images"),
        ({"prefix": "val_"}, r"val_00000001\.JPEG is not one of the 4 images"),
    ],
)
def test_imagenet_that_is_wrong(changes: dict[str, Any], message: str, classes: Path, stages: Stages) -> None:
    imagenet(stages.here, classes, kit=True, **changes)
    stages.fetch("imagenet")
    with pytest.raises(UserError, match=message):
        stages.prepare("imagenet")


def test_imagenet_that_is_incomplete(classes: Path, stages: Stages) -> None:
    imagenet(stages.here, classes, kit=True)
    stages.fetch("imagenet")
    shutil.rmtree(stages.here / "ILSVRC2012_devkit_t12")
    with pytest.raises(
        UserError, match=r"has no folders of classes, and .*ILSVRC2012_devkit_t12\.tar\.gz from https://image-net.org"
    ):
        stages.prepare("imagenet")
    (stages.here / "train").unlink()
    for wnid in WNIDS:
        (stages.here / "train" / wnid).mkdir(parents=True)
    with pytest.raises(UserError, match=f"{WNIDS[0]} has no images; unpack it again"):
        stages.prepare("imagenet")
    (stages.here / "train" / WNIDS[7]).rmdir()
    with pytest.raises(UserError, match="has 999 folders that are called like n01440764, not 1000"):
        stages.prepare("imagenet")
    shutil.rmtree(stages.here / "val")
    with pytest.raises(UserError, match="has lost val; put it back"):
        stages.prepare("imagenet")


@pytest.mark.parametrize("unpacked", [False, True])
def test_imagenet100(unpacked: bool, stages: Stages) -> None:
    """The images lie as listed, or as ILSVRC 2012 is unpacked."""
    files: dict[str, bytes | str] = {**imagenet100()}
    for label in range(100):
        files[
            f"train/{WNIDS[label]}/{WNIDS[label]}_{label}.JPEG" if unpacked else f"image/{WNIDS[label]}_{label}.JPEG"
        ] = jpeg(label)
    for label in TEST_100:
        place = f"val/{WNIDS[label]}" if label % 2 else "val"
        files[f"{place if unpacked else 'val_image'}/ILSVRC2012_val_{label + 1:08d}.JPEG"] = jpeg(label)
    write(stages.here / "imagenet100", files)
    path = stages.both("imagenet100")
    train, test = (load_prepared(path, split, inputs=InputSettings(size=8)) for split in ("train", "test"))
    assert train.labels.tolist() == list(range(100)) and test.labels.tolist() == TEST_100
    assert train.labels.dtype == torch.int64 and train.class_names == tuple(WNIDS[:100])
    check_colours(test, TEST_100)
    check_colours(train, list(range(100)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (lambda label: row(label, (label + 1) % 100, n=100), "train.txt: 100 images have not exactly one label"),
        (lambda label: row(n=100), "train.txt: 100 images have not exactly one label"),
        (lambda label: row(label, n=21), "train.txt, line 1: not a path and 100 labels"),
    ],
)
def test_imagenet100_with_other_lists(line: Callable[[int], str], message: str, stages: Stages) -> None:
    write(stages.here, imagenet100(line))
    stages.fetch("imagenet100")
    with pytest.raises(UserError, match=message):
        stages.prepare("imagenet100")


def test_images_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    write(tmp_path, {"image/a.jpg": b"", "b.jpg": b"", "train/c.jpg": b""})
    assert locate(tmp_path, "/home/x/image/a.jpg") == "image/a.jpg"
    assert locate(tmp_path, "b.jpg") == "b.jpg"
    assert locate(tmp_path, "/home/x/c.jpg", ["val/c.jpg", "train/c.jpg"]) == "train/c.jpg"
    assert locate(tmp_path, "/home/x/d.jpg") == "home/x/d.jpg"


FOLDERS = {"coco": "val2014", "nus_wide": "test.txt", "imagenet": "val", "imagenet100": "test.txt"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_missing_folder_is_described(name: str, stages: Stages) -> None:
    layout = plugins.load("dataset", name).DATASET.sources[0]
    stages.change(name, sources=[layout])
    for inside in ("", "lacks"):
        if inside:
            write(stages.here / name, {f"{entry}/x": b"" for entry in layout.entries if entry != FOLDERS[name]})
        with pytest.raises(UserError) as caught:
            stages.fetch(name)
        message = str(caught.value)
        assert "\n" not in message and inside in message
        for part in (
            *layout.entries,
            layout.origin,
            str(stages.here / name),
            repr(name),
            "data.search_paths",
            "config/config.yaml",
        ):
            assert part in message
    assert sorted(stages.folder.iterdir()) == [stages.here]


def test_part_of_a_folder_is_named_rather_than_replaced_by_a_download(stages: Stages) -> None:
    write(stages.here / "coco", {"annotations/instances_train2014.json": b"", "train2014/x": b""})
    with pytest.raises(
        UserError,
        match=r"coco lacks annotations/instances_val2014.json, val2014\).*or put annotations_trainval2014.zip, train",
    ):
        stages.fetch("coco")


def test_the_scripts_themselves_on_folders(tmp_path: Path) -> None:
    missing = stage("fetch", "--dataset", "nus_wide", "--search-path", tmp_path, "--output", tmp_path / "out/raw")
    assert (missing.returncode, missing.stderr.count("\n"), list((tmp_path / "out").iterdir())) == (2, 1, [])
    write(tmp_path / "nus_wide", nus_wide() | {"images/2_a_m.jpg": jpeg(2)[:-200]})
    done = stage("fetch", "--dataset", "nus_wide", "--search-path", tmp_path, "--output", tmp_path / "out/raw")
    assert done.returncode == 0, done.stderr
    arguments = [
        "--dataset",
        "nus_wide",
        "--raw",
        tmp_path / "out/raw",
        "--output",
        tmp_path / "out/prepared.safetensors",
    ]
    failed = stage("prepare", *arguments)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1)
    assert "1 of 4 train images cannot be read, more than a share of 0.001 (images/2_a_m.jpg)" in failed.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["raw"]
    done = stage("prepare", *arguments, "--max-unreadable", "0.25", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert "nus_wide: 3 train images\n  left out images/2_a_m.jpg: " in done.stdout
    assert len(load_prepared(tmp_path / "out/prepared.safetensors", "train", inputs=InputSettings(size=8)).labels) == 3


# --- unreadable images -------------------------------------------------------------------------------------------------------


def noise(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
        buffer, "JPEG", quality=90, progressive=size > 300
    )
    return buffer.getvalue()


def test_unreadable_images_are_left_out_up_to_a_share(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    broken = {0: noise(200)[:-4000], 3: noise(400)[:-9000], 5: b"", 6: b"<html>", 9: noise(64)[:30]}
    train = {f"images/{index}.jpg": row(index % 21, n=21) for index in range(50)}
    files = nus_wide(train) | {name: jpeg(index) for index, name in enumerate(train)}
    del files["images/12.jpg"]
    write(stages.here, files | {f"images/{index}.jpg": content for index, content in broken.items()})
    stages.fetch("nus_wide")
    message = r"nus_wide: 6 of 50 train images cannot be read, more than a share of 0.1 \(images/0.jpg, images/3.jpg, images/5.jpg, ...\);"
    with pytest.raises(UserError, match=message + ".*data.max_unreadable"):
        stages.prepare("nus_wide", "--max-unreadable", "0.1")
    assert not list(stages.folder.glob("*.safetensors"))
    capsys.readouterr()
    path = stages.prepare("nus_wide", "--max-unreadable", "0.12", "--threads", "3")
    lost = [0, 3, 5, 6, 9, 12]
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()[:7]] == [
        "nus_wide",
        *(f"  left out images/{index}.jpg" for index in lost),
    ]
    assert out.splitlines()[0] == "nus_wide: 44 train images" and out.splitlines()[-1] == "nus_wide: 3 test images"
    assert facts(path)["unreadable"] == {"train": [f"images/{index}.jpg" for index in lost], "test": []}
    subset = load_prepared(path, "train", inputs=InputSettings(size=8))
    left = [index for index in range(50) if index not in lost]
    check_colours(subset, left)
    assert subset.labels.argmax(1).tolist() == [index % 21 for index in left]


def test_many_unreadable_images_are_counted(stages: Stages, capsys: pytest.CaptureFixture[str]) -> None:
    train = {f"images/{index}.jpg": row(0, n=21) for index in range(40)}
    write(
        stages.here,
        nus_wide(train)
        | {name: jpeg() if index % 2 else b"" for index, name in enumerate(train)}
        | {"images/1.jpg": b""},
    )
    stages.fetch("nus_wide")
    capsys.readouterr()
    with pytest.raises(UserError, match="21 of 40 train images"):
        stages.prepare("nus_wide", "--max-unreadable", "0.5")
    out = capsys.readouterr().out
    assert out.count("left out images/") == 20 and "left out 1 more" in out
    for text in ("-0.1", "1.5", "nan", "some"):
        with pytest.raises(SystemExit):
            stages.prepare("nus_wide", "--max-unreadable", text)


def test_statistics_of_files_are_those_of_their_pixels(stages: Stages) -> None:
    write(stages.here, nus_wide())
    path = stages.both("nus_wide")
    subset = load_prepared(path, "train", inputs=InputSettings(size=8))
    colours = np.array([colour(index) for index in range(4)]) / 255
    np.testing.assert_allclose(subset.mean, colours.mean(0), atol=0.01)
    np.testing.assert_allclose(subset.std, colours.std(0), atol=0.01)
    first = path.read_bytes()
    assert stages.prepare("nus_wide").read_bytes() == first
    assert facts(path)["folder"] == str(stages.here)


# --- the canonical form ------------------------------------------------------------------------------------------------------


def reference(path: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], class_names: list[str]) -> None:
    """Writes the canonical form of small datasets straight from its description."""
    images = splits["train"][0]
    levels, means, stds = np.arange(256) / 255, [], []
    for channel in range(images.shape[1]):
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        means.append(float(share @ levels))
        stds.append(float(np.sqrt(share @ (levels - means[-1]) ** 2)))
    arrays = {
        f"{name}_{part}": array
        for name, split in splits.items()
        for part, array in zip(("images", "labels"), split, strict=True)
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    facts = {"class_names": class_names, "mean": means, "std": stds, "sha256": hashes}
    seal = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_bytes(save(arrays, metadata={"creditflow": json.dumps(facts | {"seal": seal})}))


def test_the_canonical_form_stays_the_same_byte_by_byte(digits: Path, tmp_path: Path) -> None:
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    splits = {"train": (images[:1297], bunch.target[:1297]), "test": (images[1297:], bunch.target[1297:])}
    reference(tmp_path / "digits", splits, list("0123456789"))
    assert hashlib.sha256(digits.read_bytes()).digest() == hashlib.sha256((tmp_path / "digits").read_bytes()).digest()


def test_images_by_columns_and_in_many_blocks(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 5, 4, 2500), dtype=np.uint8).transpose(3, 0, 2, 1)
    split = images, np.arange(2500) % 2
    save_prepared(tmp_path / "one", {"train": split, "test": split}, ["a", "b"])
    reference(tmp_path / "two", {"train": split, "test": split}, ["a", "b"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    np.testing.assert_allclose(channel_statistics(images)[0], (images / 255).mean((0, 2, 3)))


ARRAY = np.zeros((2, 1, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (ARRAY / 2, np.array([0, 1]), r"images must be uint8 \(N, C, H, W\), not float64"),
        (ARRAY[0], np.array([0]), r"images must be uint8 \(N, C, H, W\)"),
        (ARRAY, np.array([0, 1, 1]), r"2 images, but labels of shape \(3,\)"),
        (ARRAY, np.array(0), r"2 images, but labels of shape \(\)"),
        (ARRAY[:0], np.array([], int), "0 images"),
        (ARRAY, np.array([0, 2]), r"labels must lie in 0\.\.1, not 0\.\.2"),
        (ARRAY, np.array([0, -1]), r"labels must lie in 0\.\.1, not -1\.\.0"),
        (ARRAY, np.array([0, np.nan]), "labels must be whole numbers, not float64"),
        (ARRAY, np.array(["0", "1"]), "labels must be whole numbers"),
        (ARRAY, np.ones((2, 3), np.uint8), r"labels must be \(N,\), or \(N, 2\)"),
        (ARRAY, np.array([[0, 2], [1, 0]], np.uint8), r"must be 0 or 1, not 0\.\.2"),
        (ARRAY, np.array([[0, 1], [-1, 0]]), r"must be 0 or 1, not -1\.\.1"),
        (ARRAY, np.array([[0, 1], [0, 0]], np.uint8), "image 1 has no label"),
        (ImageFiles(Path("x"), ["a", "/b"]), np.array([0, 1]), "'/b' is not a file name below"),
        (ImageFiles(Path("x"), ["a", "b/../../c"]), np.array([0, 1]), "is not a file name below"),
        (ImageFiles(Path("x"), ["a", ""]), np.array([0, 1]), "'' is not a file name below"),
        (ImageFiles(Path("x"), ["a", "\udcff"]), np.array([0, 1]), "is not a file name below"),
        (ImageFiles(Path("x"), ["a"]), np.array([0, 1]), "1 images, but labels"),
    ],
)
def test_splits_that_are_inconsistent(images: Any, labels: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        save_prepared(tmp_path / "p", {"train": (images, labels)}, ["a", "b"])
    assert not (tmp_path / "p").exists()


def test_splits_are_of_one_kind() -> None:
    single, several = (ARRAY, np.array([0, 1])), (ARRAY, np.ones((2, 2), np.uint8))
    files = ImageFiles(Path("x"), ["a", "b"]), np.array([0, 1])
    for splits in ({"train": single, "test": several}, {"train": single, "test": files}, {"test": single}):
        with pytest.raises(UserError, match="all must be alike"):
            check_splits(splits, ["a", "b"])


def test_several_labels_of_small_images_are_kept(tmp_path: Path) -> None:
    labels = np.array([[1, 1], [0, 1]], np.uint8)
    save_prepared(tmp_path / "p", {"train": (ARRAY, labels), "test": (ARRAY, labels)}, ["a", "b"])
    subset = load_prepared(tmp_path / "p", "test")
    assert subset.multi_label and torch.equal(subset.labels, torch.from_numpy(labels))


def test_a_dataset_says_truly_whether_images_have_several_labels(stages: Stages) -> None:
    files, _ = mnist()
    stages.fetch("mnist", files)
    stages.change("mnist", multi_label=True)
    with pytest.raises(UserError, match="mnist: its file says multi_label=True, but its labels are otherwise"):
        stages.prepare("mnist")
