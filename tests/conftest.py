"""Fixtures that more than one file uses."""

from pathlib import Path

import pytest
import torch

from helpers import TINY_TRAINING, stage

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits dataset, fetched and prepared by the stages themselves."""
    folder = tmp_path_factory.mktemp("digits")
    for name, arguments in (
        ("fetch", ["--output", folder / "raw"]),
        ("prepare", ["--raw", folder / "raw", "--output", folder / "prepared.safetensors"]),
    ):
        done = stage(name, "--dataset", "digits", *arguments)
        assert done.returncode == 0, done.stderr
    return folder / "prepared.safetensors"


@pytest.fixture(scope="session")
def pretrained(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CNN trained on digits 0 to 4 by the stage itself."""
    path = tmp_path_factory.mktemp("pretrained") / "model.safetensors"
    done = stage(
        "pretrain", "--data", digits, "--classes", "0", "1", "2", "3", "4", "--backbone", "small_cnn",
        "--settings", TINY_TRAINING, "--output", path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path
