"""ImageNet and ImageNet-100."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.formats.lists import locate
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from formats import PICTURES, TEST_100, WNIDS, imagenet, imagenet100, jpeg, meta_mat, row, write
from preparing import Stages, check_colours


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training image for each class of ImageNet."""
    folder = tmp_path_factory.mktemp("classes")
    write(folder, {f"{wnid}/{wnid}_{index}.JPEG": PICTURES[min(index, 4)] for index, wnid in enumerate(WNIDS)})
    return folder


@pytest.mark.parametrize("kit", [False, True])
def test_imagenet(kit: bool, classes: Path, stages: Stages) -> None:
    imagenet(stages.here / "imagenet", classes, kit)
    path = stages.fetch_and_prepare("imagenet")
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
    labels = {name.rpartition("_")[2]: int(label) for name, label in zip(test.images.names, test.labels, strict=True)}
    wanted = {"00000001.JPEG": 0, "00000002.JPEG": 1, "00000003.JPEG": 2, "00000004.JPEG": 1}
    assert {name: labels[name] for name in wanted} == wanted


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
    path = stages.fetch_and_prepare("imagenet100")
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
