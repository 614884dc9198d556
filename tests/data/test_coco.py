"""MS-COCO: in a folder of the user's, as archives, downloaded; and annotations that are wrong."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings
from creditflow.data.sources import DownloadEach
from formats import coco, coco_archives, coco_shows, jpeg, md5, write, zipped
from preparing import Stages, check_colours


def check_coco(path: Path) -> None:
    for split, images in (("train", [5, 4, 3, 2, 1]), ("test", [12, 11, 10])):  # in the order of their ids
        subset = load_prepared(path, split, inputs=InputSettings(size=16))
        check_colours(subset, images)
        assert subset.multi_label and subset.labels.shape == (len(images), 80)
        assert [row.nonzero().flatten().tolist() for row in subset.labels] == [coco_shows(image) for image in images]
        assert subset.class_names[:2] == ("person", "bicycle")


@pytest.mark.parametrize("place", ["here", "here/coco"])
def test_coco_in_a_folder_of_the_users(place: str, stages: Stages) -> None:
    write(stages.folder / place, coco())
    raw = stages.fetch("coco")
    assert [path.name for path in raw.iterdir()] == ["origin.json"]
    assert json.loads((raw / "origin.json").read_text(encoding="utf-8"))["folder"] == str(stages.folder / place)
    check_coco(stages.prepare("coco"))


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
    with pytest.raises(UserError, match=rf"{raw} has lost val2014; put it back, or move {raw} away"):
        stages.prepare("coco")


def test_coco_downloaded(stages: Stages) -> None:
    files = coco_archives()
    write(stages.folder / "there", files)
    download = DownloadEach({name: (stages.folder / "there" / name).as_uri() for name in files})
    folder = plugins.load("dataset", "coco").DATASET.sources[0]
    stages.change("coco", checksums={name: md5(content) for name, content in files.items()}, sources=[folder, download])
    check_coco(stages.fetch_and_prepare("coco"))


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


@pytest.mark.parametrize("text", ["", '{"images": [', "[]", "\xff"])
def test_annotations_of_coco_that_are_no_json(text: str, stages: Stages) -> None:
    write(stages.here, coco() | {"annotations/instances_train2014.json": text.encode("latin1")})
    stages.fetch("coco")
    with pytest.raises(UserError, match=r"instances_train2014\.json has no annotations of objects"):
        stages.prepare("coco")
