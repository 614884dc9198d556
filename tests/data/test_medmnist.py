"""PathMNIST and ChestMNIST."""

import io

import numpy as np
import pytest

from creditflow.data.prepared import load_prepared
from formats import findings, medmnist, pathmnist
from preparing import Stages, check_refused


def test_chestmnist_has_a_label_for_images_without_findings(stages: Stages) -> None:
    files = medmnist("chestmnist", (28, 28), findings)
    path = stages.fetch_and_prepare("chestmnist", files)
    with np.load(io.BytesIO(files["chestmnist.npz"])) as content:
        for split, n in (("train", 12), ("test", 10)):
            subset = load_prepared(path, split)
            assert subset.multi_label and len(subset.class_names) == 15
            np.testing.assert_array_equal(subset.images, content[f"{split}_images"][:, None])
            np.testing.assert_array_equal(subset.labels[:, :14], findings(n))
            assert subset.labels[:, 14].tolist() == [1, 1] + [0] * (n - 2)


WRONG = {
    "pathmnist grey": (
        "pathmnist",
        lambda: pathmnist(test_images=np.zeros((10, 28, 28), np.uint8)),
        r"of shape \(10, 28, 28\)",
    ),
    "pathmnist no test": ("pathmnist", lambda: pathmnist(test_labels=None), "lacks a split"),
    "pathmnist label 9": (
        "pathmnist",
        lambda: pathmnist(test_labels=np.full((10, 1), 9)),
        r"labels must lie in 0\.\.8, not 9\.\.9",
    ),
    "pathmnist objects": (
        "pathmnist",
        lambda: pathmnist(test_labels=np.array([None])),
        "Object arrays cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_pathmnist_with_something_else_in_its_archive_is_refused(case: str, stages: Stages) -> None:
    name, make, message = WRONG[case]
    check_refused(name, make()[0], message, stages)
