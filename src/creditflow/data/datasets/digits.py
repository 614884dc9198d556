"""Handwritten digits (Alpaydin and Kaynak, 1998), inside scikit-learn: 1,797 grey images of 8x8 pixels, ten classes.

Small enough for tests and first tries. The original has no split here: the first 1,297 images train, the last 500 test.
"""

from pathlib import Path

import numpy as np

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain
from creditflow.data.dataset import Dataset, Split
from creditflow.data.sources import PackageFile

_N_TRAIN, _N_IMAGES = 1297, 1797


def _read(folder: Path) -> dict[str, Split]:
    path = folder / "digits.csv"
    try:
        check_plain(path)
        table = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2, max_rows=_N_IMAGES + 1)
    except Exception as error:  # NumPy's reader fails in many ways on damaged text
        raise UserError(f"{path} is truncated or corrupt ({one_line(error)}); fetch it again") from error
    if table.shape != (_N_IMAGES, 65) or table.min() < 0 or table[:, :-1].max() > 16 or table[:, -1].max() > 9:
        raise UserError(f"{path} does not have {_N_IMAGES} rows of 64 levels 0..16 and a digit; fetch it again")
    # The 17 grey levels 0..16 become 0..255, like every other dataset's.
    images = np.round(table[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = table[:, -1]
    return {"train": (images[:_N_TRAIN], labels[:_N_TRAIN]), "test": (images[_N_TRAIN:], labels[_N_TRAIN:])}


DATASET = Dataset(
    checksums={"digits.csv": "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"},
    sources=[PackageFile("sklearn.datasets.data")],
    read=_read,
    class_names=tuple("0123456789"),
)
