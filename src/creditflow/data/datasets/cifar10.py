"""CIFAR-10 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32 pixels, ten classes."""

from pathlib import Path

from creditflow.data.dataset import Dataset, Split
from creditflow.data.formats import cifar
from creditflow.data.sources import Download

_ARCHIVE, _INSIDE = "cifar-10-python.tar.gz", "cifar-10-batches-py"
_SPLITS = {"train": [f"{_INSIDE}/data_batch_{number}" for number in range(1, 6)], "test": [f"{_INSIDE}/test_batch"]}


def _read(folder: Path) -> dict[str, Split]:
    return cifar.read_splits(folder / _ARCHIVE, _SPLITS, b"labels")


DATASET = Dataset(
    checksums={_ARCHIVE: "md5:c58f30108f718f92721af3b95e74349a"},
    sources=[Download(lambda: ["https://www.cs.toronto.edu/~kriz"])],
    read=_read,
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)
