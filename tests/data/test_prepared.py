"""The canonical form: byte by byte, its statistics, its classes, and splits that it refuses."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from sklearn.datasets import load_digits

from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import load_prepared, save_prepared
from creditflow.data.settings import InputSettings
from creditflow.data.splits import channel_statistics, check_splits
from formats import RNG, colour, mnist, nus_wide, write
from preparing import Stages, facts


def reference(
    path: Path, splits: Mapping[str, tuple[np.ndarray, np.ndarray]], class_names: list[str], dataset: str | None = None
) -> None:
    """Writes the canonical form of small datasets straight from its description."""
    images = splits["train"][0]
    levels, means, stds = np.arange(256) / 255, [], []
    for channel in range(images.shape[1]):
        share = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        means.append(float(share @ levels))
        stds.append(float(np.sqrt(share @ (levels - means[-1]) ** 2)))
    arrays = {
        f"{name}_{part}": array
        for name, split in splits.items()
        for part, array in zip(("images", "labels"), split, strict=True)
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    facts: dict[str, object] = {"class_names": class_names, "mean": means, "std": stds}
    facts |= ({} if dataset is None else {"identity": {"dataset": dataset}}) | {"sha256": hashes}
    seal = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path.write_bytes(save(arrays, metadata={"creditflow": json.dumps(facts | {"seal": seal})}))


def test_the_canonical_form_stays_the_same_byte_by_byte(digits: Path, tmp_path: Path) -> None:
    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    splits = {"train": (images[:1297], bunch.target[:1297]), "test": (images[1297:], bunch.target[1297:])}
    reference(tmp_path / "digits", splits, list("0123456789"), "digits")
    assert hashlib.sha256(digits.read_bytes()).digest() == hashlib.sha256((tmp_path / "digits").read_bytes()).digest()


def test_images_by_columns_and_in_many_blocks(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (3, 5, 4, 2500), dtype=np.uint8).transpose(3, 0, 2, 1)
    split = images, np.arange(2500) % 2
    save_prepared(tmp_path / "one", {"train": split, "test": split}, ["a", "b"])
    reference(tmp_path / "two", {"train": split, "test": split}, ["a", "b"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    np.testing.assert_allclose(channel_statistics(images)[0], (images / 255).mean((0, 2, 3)))


def test_statistics_are_numpys() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 5, 4), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)))
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)))
    assert channel_statistics(np.zeros((2, 1, 2, 2), np.uint8)) == ([0.0], [1.0])
    assert to_unit_interval(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [0.0, 1.0]


def test_the_digits_are_scikit_learns(digits: Path) -> None:
    bunch = load_digits()
    parts = [load_prepared(digits, split) for split in ("train", "test")]
    images = torch.cat([part.images for part in parts])[:, 0]
    np.testing.assert_allclose(images.double().numpy() * 16 / 255, bunch.images, atol=0.05)
    np.testing.assert_array_equal(torch.cat([part.labels for part in parts]), bunch.target)
    assert parts[0].class_names == tuple("0123456789")


def test_classes_are_chosen_and_renumbered_in_their_order(digits: Path) -> None:
    everything = load_prepared(digits, "train")
    chosen = load_prepared(digits, "train", [7, 2])
    assert chosen.class_names == ("7", "2")
    assert torch.equal(chosen.images[chosen.labels == 0], everything.images[everything.labels == 7])
    assert torch.equal(chosen.images[chosen.labels == 1], everything.images[everything.labels == 2])
    assert len(chosen.labels) == int(((everything.labels == 7) | (everything.labels == 2)).sum())
    with pytest.raises(UserError, match="class 12 has no image"):
        load_prepared(digits, "train", [1, 12])


def test_equal_datasets_are_equal_files(tmp_path: Path) -> None:
    split = (np.zeros((2, 1, 2, 2), np.uint8), np.array([0, 1]))
    for name in ("one", "two"):
        save_prepared(tmp_path / name, {"train": split, "test": split}, ["a", "b"])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(UserError, match=r"labels must lie in 0\.\.0"):
        save_prepared(tmp_path / "three", {"train": split}, ["a"])
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_what_is_not_a_prepared_dataset_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "prepared.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a prepared dataset with a 'train' split"):
        load_prepared(path, "train")


def test_statistics_of_files_are_those_of_their_pixels(stages: Stages) -> None:
    write(stages.here, nus_wide())
    path = stages.fetch_and_prepare("nus_wide")
    subset = load_prepared(path, "train", inputs=InputSettings(size=8))
    colours = np.array([colour(index) for index in range(4)]) / 255
    np.testing.assert_allclose(subset.mean, colours.mean(0), atol=0.01)
    np.testing.assert_allclose(subset.std, colours.std(0), atol=0.01)
    first = path.read_bytes()
    assert stages.prepare("nus_wide").read_bytes() == first
    assert facts(path)["folder"] == str(stages.here)


ARRAY = np.zeros((2, 1, 2, 2), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (ARRAY / 2, np.array([0, 1]), r"images must be uint8 \(N, C, H, W\), not float64"),
        (ARRAY[0], np.array([0]), r"images must be uint8 \(N, C, H, W\)"),
        (ARRAY, np.array([0, 1, 1]), r"2 images, but labels of shape \(3,\)"),
        (ARRAY, np.array(0), r"2 images, but labels of shape \(\)"),
        (ARRAY[:0], np.array([], int), "0 images"),
        (ARRAY, np.array([0, 2]), r"labels must lie in 0\.\.1, not 0\.\.2"),
        (ARRAY, np.array([0, -1]), r"labels must lie in 0\.\.1, not -1\.\.0"),
        (ARRAY, np.array([0, np.nan]), "labels must be whole numbers, not float64"),
        (ARRAY, np.array(["0", "1"]), "labels must be whole numbers"),
        (ARRAY, np.ones((2, 3), np.uint8), r"labels must be \(N,\), or \(N, 2\)"),
        (ARRAY, np.array([[0, 2], [1, 0]], np.uint8), r"must be 0 or 1, not 0\.\.2"),
        (ARRAY, np.array([[0, 1], [-1, 0]]), r"must be 0 or 1, not -1\.\.1"),
        (ARRAY, np.array([[0, 1], [0, 0]], np.uint8), "image 1 has no label"),
        (ImageFiles(Path("x"), ["a", "/b"]), np.array([0, 1]), "'/b' is not a file name below"),
        (ImageFiles(Path("x"), ["a", "b/../../c"]), np.array([0, 1]), "is not a file name below"),
        (ImageFiles(Path("x"), ["a", ""]), np.array([0, 1]), "'' is not a file name below"),
        (ImageFiles(Path("x"), ["a", "\udcff"]), np.array([0, 1]), "is not a file name below"),
        (ImageFiles(Path("x"), ["a"]), np.array([0, 1]), "1 images, but labels"),
    ],
)
def test_splits_that_are_inconsistent(images: Any, labels: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        save_prepared(tmp_path / "p", {"train": (images, labels)}, ["a", "b"])
    assert not (tmp_path / "p").exists()


def test_splits_are_of_one_kind() -> None:
    single, several = (ARRAY, np.array([0, 1])), (ARRAY, np.ones((2, 2), np.uint8))
    files = ImageFiles(Path("x"), ["a", "b"]), np.array([0, 1])
    for splits in ({"train": single, "test": several}, {"train": single, "test": files}, {"test": single}):
        with pytest.raises(UserError, match="all must be alike"):
            check_splits(splits, ["a", "b"])


def test_several_labels_of_small_images_are_kept(tmp_path: Path) -> None:
    labels = np.array([[1, 1], [0, 1]], np.uint8)
    save_prepared(tmp_path / "p", {"train": (ARRAY, labels), "test": (ARRAY, labels)}, ["a", "b"])
    subset = load_prepared(tmp_path / "p", "test")
    assert subset.multi_label and torch.equal(subset.labels, torch.from_numpy(labels))


def test_a_dataset_says_truly_whether_images_have_several_labels(stages: Stages) -> None:
    files, _ = mnist()
    stages.fetch("mnist", files)
    stages.change("mnist", multi_label=True)
    with pytest.raises(
        UserError, match="mnist: its file says multi_label=True, but its labels have the shape for False"
    ):
        stages.prepare("mnist")
