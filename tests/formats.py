"""Tiny files in the true formats of all datasets, written for the tests, and what is in them."""

import gzip
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from PIL import Image

from creditflow.core import plugins

RNG = np.random.default_rng(0)

#: The content of files by their names, and images and labels by the name of their split.
Files = dict[str, bytes]
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


def md5(content: bytes) -> str:
    """Returns a checksum as datasets state it."""
    return "md5:" + hashlib.md5(content).hexdigest()


def write(folder: Path, files: Mapping[str, bytes | str]) -> None:
    """Writes files, in folders, below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def colour(index: int) -> tuple[int, int, int]:
    """Returns a colour that tells which image it is."""
    return 40 + 37 * index % 200, 30 + 71 * index % 190, 20 + 13 * index % 210


def jpeg(index: int = 0, size: tuple[int, int] = (20, 14), mode: str = "RGB") -> bytes:
    """Returns an image of the one colour of its index, as a JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour(index)).convert(mode).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def noise(size: int) -> bytes:
    """Returns a square image of random pixels as a JPEG, progressive if it is large."""
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(
        buffer, "JPEG", quality=90, progressive=size > 300
    )
    return buffer.getvalue()


def tar(members: Mapping[str, bytes], *others: tarfile.TarInfo) -> bytes:
    """Returns a .tar.gz archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for info in others:
            archive.addfile(info)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    """Returns a symbolic link, to be a member of a tar archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def zipped(members: Mapping[str, bytes | str], *others: zipfile.ZipInfo) -> bytes:
    """Returns a .zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for info in others:
            archive.writestr(info, "target")
    return buffer.getvalue()


def idx(array: np.ndarray) -> bytes:
    """Returns an array of unsigned bytes in the format of MNIST's files, not compressed."""
    return (
        b"\x00\x00\x08"
        + bytes([array.ndim])
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(np.uint8).tobytes()
    )


def mnist(**changes: np.ndarray) -> tuple[Files, Arrays]:
    """Returns the four files of MNIST, some with other arrays in them, and what is in the files without these."""
    files, expected = {}, {}
    for split, prefix, n in (("train", "train", 12), ("test", "t10k", 10)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 10
        expected[split] = images[:, np.newaxis], labels
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(idx(changes.get(f"{split}_images", images)))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(idx(changes.get(f"{split}_labels", labels)))
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
) -> tuple[Files, Arrays]:
    """Returns the archive, of which `change` may spoil the second batch, and what is in it."""
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


def cifar100(n_names: int = 100, n_labels: int = 100) -> tuple[Files, Arrays]:
    """Returns the archive, and what is in it."""
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
) -> tuple[Files, Arrays]:
    """Returns both files, whose variables `change` may spoil, and what is in them."""
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
) -> tuple[Files, Arrays]:
    """Returns the archive, whose members `change` may spoil, and what is in it."""
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
    """Returns an archive like MedMNIST's: three splits of images and labels in one .npz file, some of them changed."""
    content: dict[str, Any] = {}
    for split, n in (("train", 12), ("val", 3), ("test", 10)):
        content[f"{split}_images"] = RNG.integers(0, 256, (n, *pictures), dtype=np.uint8)
        content[f"{split}_labels"] = labels(n)
    content = {key: value for key, value in (content | change).items() if value is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    return {f"{name}.npz": buffer.getvalue()}


def pathmnist(**change: Any) -> tuple[Files, Arrays]:
    """Returns the archive, some of its arrays changed, and what is in it if none is."""
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
    """Returns labels of ChestMNIST: two for each image, but none for the first two."""
    labels = np.zeros((n, 14), dtype=np.uint8)
    for index in range(2, n):
        labels[index, [index % 14, (index + 5) % 14]] = 1
    return labels


COCO_NAMES = plugins.load("dataset", "coco").DATASET.class_names
#: Category ids of 2014 have gaps: 80 of 1..90.
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def coco_shows(image: int) -> list[int]:
    """Returns the labels of an image: two, but all for the last of a split."""
    return list(range(80)) if image in (5, 12) else [image, image + 10] if image else []


def coco(change: Callable[[dict[str, Any]], Any] = lambda content: None) -> dict[str, bytes | str]:
    """Returns six training images, of which the first shows nothing, three test images, and annotations."""
    files: dict[str, bytes | str] = {}
    categories = [{"id": number, "name": name} for number, name in zip(COCO_IDS, COCO_NAMES, strict=True)]
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
            "categories": categories[::-1],
            "annotations": annotations,
        }
        change(content)
        files[f"annotations/instances_{part}.json"] = json.dumps(content)
        files |= {f"{part}/COCO_{part}_{image:012d}.jpg": jpeg(image) for image in numbers}
    return files


def coco_archives() -> dict[str, bytes]:
    """Returns the three archives with the files of `coco`, and one file more."""
    files = coco() | {"annotations/captions_train2014.json": "{}"}
    parts = {"annotations_trainval2014.zip": "annotations/", "train2014.zip": "train2014/", "val2014.zip": "val2014/"}
    return {
        name: zipped({file: content for file, content in files.items() if file.startswith(begin)})
        for name, begin in parts.items()
    }


def row(*labels: int, n: int) -> str:
    """Returns the labels of an image as a list has them: n zeros and ones."""
    return " ".join("1" if label in labels else "0" for label in range(n))


def nus_wide_shows(image: int) -> list[int]:
    """Returns the labels of an image: two, but all for the last of a split."""
    return list(range(21)) if image in (3, 6) else [image, 20]


def nus_wide(train: Mapping[str, str] | None = None) -> dict[str, bytes | str]:
    """Returns lists, of which the training list may be another, and images."""
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


def imagenet(folder: Path, classes: Path, kit: bool, **changes: Any) -> None:
    """Writes links to training images, and four validation images: in folders of classes, or flat with the kit."""
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
    """Returns the number of a class in the development kit: from 1, in another order than that of the WordNet ids."""
    return (label * 7) % 1000 + 1


def meta_mat(wnids: list[str] = WNIDS) -> bytes:
    """Returns the kit's list of classes: an array of structs, with an inner node of WordNet after the classes."""
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(np.float64(kit_number(label)), wnid, "some, words", np.float64(0)) for label, wnid in enumerate(wnids)]
    rows += [(np.float64(1001), "n00001740", "entity", np.float64(3))]
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=kinds)[:, np.newaxis]}, do_compression=True)
    return buffer.getvalue()


TEST_100 = [3, 0, *range(99, 3, -1), 1, 2]


def imagenet100(line: Callable[[int], str] = lambda label: row(label, n=100)) -> dict[str, str]:
    """Returns HashNet's lists, with the folders of their author."""
    begin = "/home/someone/dataset/imagenet"
    train = "".join(f"{begin}/image/{WNIDS[label]}_{label}.JPEG {line(label)}\n" for label in range(100))
    test = "".join(f"{begin}/val_image/ILSVRC2012_val_{label + 1:08d}.JPEG {line(label)}\n" for label in TEST_100)
    return {"train.txt": train, "test.txt": test}
