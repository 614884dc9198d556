"""MNIST, Fashion-MNIST and the format IDX."""

from pathlib import Path

import numpy as np
import pytest

from creditflow.core.errors import UserError
from creditflow.data.datasets import fashion_mnist
from creditflow.data.formats.idx import read_idx
from formats import idx, mnist
from preparing import Stages, check_refused

WRONG = {
    "mnist one label short": ("mnist", lambda: mnist(train_labels=np.zeros(11)), "12 images, but labels of shape"),
    "mnist label 10": ("mnist", lambda: mnist(test_labels=np.arange(1, 11)), r"labels must lie in 0\.\.9, not 1\.\.10"),
    "mnist flat images": ("mnist", lambda: mnist(test_images=np.zeros((10, 784))), r"t10k images of shape \(10, 784\)"),
    "mnist a number": ("mnist", lambda: mnist(test_labels=np.array(3)), r"labels of shape \(\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mnist_with_something_else_in_its_files_is_refused(case: str, stages: Stages) -> None:
    name, make, message = WRONG[case]
    check_refused(name, make()[0], message, stages)


def test_fashion_mnists_reader_reads_idx_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for prefix, n in (("train", 7), ("t10k", 3)):
        arrays[prefix] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8), rng.integers(0, 10, n, dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(arrays[prefix][0]))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(arrays[prefix][1]))
    splits = fashion_mnist.DATASET.read(tmp_path)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        np.testing.assert_array_equal(splits[split][0][:, 0], arrays[prefix][0])
        np.testing.assert_array_equal(splits[split][1], arrays[prefix][1])


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", b"\x00\x00\x08\x03\x00", idx(np.zeros((2, 3)))[:-1]]
)
def test_what_is_not_idx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        read_idx(path)
