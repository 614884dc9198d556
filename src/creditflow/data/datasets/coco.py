"""MS-COCO 2014 (Lin et al., 2014): 82,081 + 40,137 photographs with any of 80 kinds of objects.

The labels of an image are all kinds of objects in it. Training images are train2014, test images val2014; images
without an annotated object are left out.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import read_plain
from creditflow.data.dataset import Dataset, ImageFiles, Split
from creditflow.data.sources import DownloadEach, UserFolder

_CATEGORIES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)

_FOLDER = UserFolder(
    "coco",
    ("annotations/instances_train2014.json", "annotations/instances_val2014.json", "train2014", "val2014"),
    "https://cocodataset.org",
)
#: The most bytes of a file of annotations, which is held in memory, and its most values; the largest of 2014 has
#: 332 MB, of which each value takes three bytes at least.
_MAX_ANNOTATIONS, _MAX_ANNOTATION_VALUES = 512 << 20, 120_000_000
# https://images.cocodataset.org is this storage, but shows a certificate for another name, which no client accepts.
_ADDRESS = "https://s3.amazonaws.com/images.cocodataset.org"


def _read(raw: Path) -> dict[str, Split]:
    folder = _FOLDER.located(raw)
    return {split: _split(folder, part) for split, part in (("train", "train2014"), ("test", "val2014"))}


def _split(folder: Path, part: str) -> Split:
    path = folder / f"annotations/instances_{part}.json"
    kinds, names, objects = _annotations(path)
    label = {identity: index for index, identity in enumerate(kinds)}
    position = {image: index for index, image in enumerate(sorted({image for image, _ in objects}))}
    labels = np.zeros((len(position), len(label)), dtype=np.uint8)
    try:
        for image, identity in objects:
            labels[position[image], label[identity]] = 1
        return ImageFiles(folder, [f"{part}/{names[image]}" for image in position]), labels
    except KeyError as error:
        raise UserError(f"{path} annotates an image or category {error} that it does not have; get it again") from error


def _annotations(path: Path) -> tuple[list[int], dict[int, str], set[tuple[int, int]]]:
    """Returns the ids of the 80 categories in order, file names by image id, and (image, category) of all objects."""
    try:
        content = json.loads(_annotation_bytes(path), object_hook=_without_outlines)
        kinds = sorted((_identity(category["id"]), category["name"]) for category in content["categories"])
        names = {_identity(image["id"]): image["file_name"] for image in content["images"]}
        objects = {
            (_identity(annotation["image_id"]), _identity(annotation["category_id"]))
            for annotation in content["annotations"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} has no annotations of objects ({type(error).__name__}: {one_line(error)}); get it again"
        ) from error
    if tuple(name for _, name in kinds) != _CATEGORIES:
        raise UserError(f"{path} has {len(kinds)} categories that are not the 80 of 2014; get it again")
    if not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path} has images without a file name; get it again")
    return [identity for identity, _ in kinds], names, objects


def _annotation_bytes(path: Path) -> bytes:
    """Returns a file of JSON. Raises ValueError if it has more bytes or values than any published one.

    A value of three bytes, such as `[],`, takes twenty times as many as an object of Python.
    """
    if path.stat().st_size > _MAX_ANNOTATIONS:
        raise ValueError(f"it is larger than {_MAX_ANNOTATIONS >> 20:,} MiB")
    content = read_plain(path)
    if sum(map(content.count, (b",", b"[", b"{"))) > _MAX_ANNOTATION_VALUES:
        raise ValueError(f"it has more than {_MAX_ANNOTATION_VALUES:,} values")
    return content


def _identity(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"an id is {value!r:.40}, and no whole number")
    return value


def _without_outlines(entry: dict[str, Any]) -> dict[str, Any]:
    """Drops the outlines of objects, nine tenths of the file, as soon as they are read."""
    entry.pop("segmentation", None)
    return entry


DATASET = Dataset(
    checksums={
        "annotations_trainval2014.zip": "md5:0a379cfc70b0e71301e0f377548639bd",
        "train2014.zip": "md5:0da8c0bd3d6becc4dcb32757491aca88",
        "val2014.zip": "md5:a3d79f5ed8d289b7a7554ce06a5782b3",
    },
    sources=[
        _FOLDER,
        DownloadEach(
            {
                "annotations_trainval2014.zip": f"{_ADDRESS}/annotations/annotations_trainval2014.zip",
                "train2014.zip": f"{_ADDRESS}/zips/train2014.zip",
                "val2014.zip": f"{_ADDRESS}/zips/val2014.zip",
            }
        ),
    ],
    read=_read,
    class_names=_CATEGORIES,
    multi_label=True,
)
