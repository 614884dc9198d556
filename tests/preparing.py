"""Fetches and prepares datasets in the process of the tests, and checks what is stored."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch

import fetch as fetch_stage
import prepare as prepare_stage
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.prepared import Subset, load_prepared
from creditflow.data.settings import InputSettings
from formats import colour, md5


class Stages:
    """Runs the stages in this process; published checksums give way to those of the tiny files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.here = folder / "here"
        self.here.mkdir()

    def fetch(self, name: str, files: Mapping[str, bytes] | None = None) -> Path:
        """Writes archives into a search path, and fetches them."""
        if files is not None:
            for file, content in files.items():
                (self.here / file).write_bytes(content)
            self.change(name, checksums={file: md5(content) for file, content in files.items()})
        raw = self.folder / "raw"
        self.run(fetch_stage.main, "--dataset", name, "--search-path", self.here, "--output", raw)
        return raw

    def change(self, name: str, **changes: Any) -> None:
        module = plugins.load("dataset", name)
        self.monkeypatch.setattr(module, "DATASET", dataclasses.replace(module.DATASET, **changes))

    def prepare(self, name: str, *options: str) -> Path:
        path = self.folder / "prepared.safetensors"
        self.run(prepare_stage.main, "--dataset", name, "--raw", self.folder / "raw", "--output", path, *options)
        return path

    def run(self, main: Callable[[], None], *arguments: str | Path) -> None:
        self.monkeypatch.setattr(sys, "argv", ["stage", *map(str, arguments)])
        main()

    def fetch_and_prepare(self, name: str, files: Mapping[str, bytes] | None = None) -> Path:
        self.fetch(name, files)
        return self.prepare(name)


def facts(path: Path) -> dict[str, Any]:
    with safetensors.safe_open(path, framework="np") as file:
        return json.loads(file.metadata()["creditflow"])


def everything(subset: Subset) -> tuple[torch.Tensor, torch.Tensor]:
    return subset.batch(torch.arange(len(subset.labels)))


def check_arrays(path: Path, expected: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Checks stored images and labels, and batches of another size."""
    for split, (images, labels) in expected.items():
        subset = load_prepared(path, split)
        np.testing.assert_array_equal(subset.images, images)
        np.testing.assert_array_equal(subset.labels, labels)
        assert not subset.multi_label
        larger = load_prepared(path, split, inputs=InputSettings(size=40, channels=3))
        x, y = everything(larger)
        assert x.shape == (len(images), 3, 40, 40)
        assert torch.equal(y, torch.from_numpy(labels).long())
        np.testing.assert_allclose(x.mean((2, 3)).numpy().mean(1), images.mean((1, 2, 3)) / 255, atol=0.02)
    np.testing.assert_allclose(load_prepared(path, "train").mean, expected["train"][0].mean((0, 2, 3)) / 255)


def check_colours(subset: Subset, indices: list[int]) -> None:
    """Checks that images are those written for the indices."""
    x, _ = everything(subset)
    expected = torch.tensor([colour(index) for index in indices]) / 255
    torch.testing.assert_close(x.mean((2, 3)), expected, atol=0.02, rtol=0)
    one_by_one = [images for images, _ in subset.batches(torch.arange(len(subset.labels)).split(2))]
    assert torch.equal(torch.cat(one_by_one), x)


def check_refused(name: str, files: Mapping[str, bytes], message: str, stages: Stages) -> None:
    """Checks that a dataset's files are fetched, and that preparing them ends in one line and leaves nothing."""
    stages.fetch(name, files)
    with pytest.raises(UserError, match=message) as caught:
        stages.prepare(name)
    assert "\n" not in str(caught.value)
    assert not list(stages.folder.glob("*.safetensors"))
