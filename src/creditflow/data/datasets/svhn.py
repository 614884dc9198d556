"""SVHN, cropped digits (Netzer et al., 2011): 73,257 + 26,032 colour images of 32x32 pixels, the ten digits.

The 531,131 easier images that are called "extra" are left out.
"""

from pathlib import Path

import numpy as np

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats.mat import read_mat
from creditflow.data.sources import Download


def _read(folder: Path) -> dict[str, Split]:
    return {split: _split(folder / f"{split}_32x32.mat") for split in ("train", "test")}


def _split(path: Path) -> Split:
    images, labels = map(np.asarray, read_mat(path, ["X", "y"]))
    right_kinds = images.dtype == np.uint8 and labels.dtype.kind in "iu"
    if not right_kinds or images.shape[:-1] != (32, 32, 3) or labels.shape != (images.shape[-1], 1):
        raise UserError(
            f"{path}: X of shape {images.shape} and y of shape {labels.shape} are not SVHN's; fetch it again"
        )
    labels = labels[:, 0].astype(np.int64)
    if labels.min(initial=1) < 1 or labels.max(initial=1) > 10:
        raise UserError(f"{path}: labels must lie in 1..10, not {labels.min()}..{labels.max()}; fetch it again")
    return images.transpose(3, 2, 0, 1), labels % 10  # the label of the digit 0 is 10


# Not everybody who names this host reaches it by https, so http comes second. The checksums are verified either way.
_ADDRESSES = ("https://ufldl.stanford.edu/housenumbers", "http://ufldl.stanford.edu/housenumbers")

DATASET = Dataset(
    checksums={
        "train_32x32.mat": "md5:e26dedcc434d2e4c54c9b2d4a06d8373",
        "test_32x32.mat": "md5:eb5a983be6a315427106f1b164d9cef3",
    },
    sources=[Download(lambda: _ADDRESSES)],
    read=_read,
    class_names=tuple("0123456789"),
)
