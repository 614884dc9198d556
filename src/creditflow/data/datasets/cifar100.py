"""CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32 pixels; the 100 fine labels."""

from pathlib import Path

from creditflow.core.errors import UserError
from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats import cifar
from creditflow.data.sources import Download

_ARCHIVE, _INSIDE, _N_CLASSES = "cifar-100-python.tar.gz", "cifar-100-python", 100


def _read(folder: Path) -> dict[str, Split]:
    return cifar.read_splits(
        folder / _ARCHIVE, {"train": [f"{_INSIDE}/train"], "test": [f"{_INSIDE}/test"]}, b"fine_labels"
    )


def _class_names(folder: Path) -> tuple[str, ...]:
    names = cifar.read_names(folder / _ARCHIVE, f"{_INSIDE}/meta", b"fine_label_names")
    if len(names) != _N_CLASSES:
        raise UserError(f"{folder / _ARCHIVE} has {len(names)} fine labels, not {_N_CLASSES}; fetch it again")
    return names


DATASET = Dataset(
    checksums={_ARCHIVE: "md5:eb9058c3a382ffc7106e4002c42a8d85"},
    sources=[Download(lambda: ["https://www.cs.toronto.edu/~kriz"])],
    read=_read,
    class_names=_class_names,
)
