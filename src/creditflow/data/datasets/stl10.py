"""STL-10 (Coates, Lee and Ng, 2011): 5,000 + 8,000 colour images of 96x96 pixels, ten classes.

The 100,000 images without labels, 90% of the archive, are left out.
"""

from pathlib import Path

import numpy as np

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats.archives import read_members
from creditflow.data.sources import Download

_ARCHIVE, _INSIDE = "stl10_binary.tar.gz", "stl10_binary"
_SHAPE = (3, 96, 96)
_N_CLASSES = 10


def _read(folder: Path) -> dict[str, Split]:
    names = [f"{_INSIDE}/{split}_{part}.bin" for split in ("train", "test") for part in "Xy"]
    contents = read_members(folder / _ARCHIVE, names)
    return {split: _split(contents, split, folder / _ARCHIVE) for split in ("train", "test")}


def _split(contents: dict[str, bytes], split: str, archive: Path) -> Split:
    pixels, labels = (np.frombuffer(contents.pop(f"{_INSIDE}/{split}_{part}.bin"), dtype=np.uint8) for part in "Xy")
    if pixels.size != labels.size * np.prod(_SHAPE) or labels.min(initial=1) < 1 or labels.max(initial=1) > _N_CLASSES:
        raise UserError(f"{archive}: its {split} images or labels are not STL-10's; fetch it again")
    # The archive has the pixels of an image column by column, and its labels begin with 1.
    return pixels.reshape(-1, *_SHAPE).transpose(0, 1, 3, 2), labels.astype(np.int64) - 1


DATASET = Dataset(
    checksums={_ARCHIVE: "md5:91f7769df0f17e558f3565bffb0c7dfb"},
    sources=[Download(lambda: ["https://ai.stanford.edu/~acoates/stl10"])],
    read=_read,
    class_names=("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"),
)
