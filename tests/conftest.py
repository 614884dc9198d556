"""Fixtures that more than one file uses."""

import signal
from pathlib import Path

import pytest
import torch

from helpers import TINY_TRAINING, stage

torch.set_num_threads(1)

# Else, where a shell started the tests in the background, what they start would be deaf to Ctrl-C, as background jobs are.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: at the end no core waits for one long file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


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
        "pretrain",
        "--data",
        digits,
        "--classes",
        "0",
        "1",
        "2",
        "3",
        "4",
        "--backbone",
        "small_cnn",
        "--settings",
        TINY_TRAINING,
        "--output",
        path,
    )
    assert done.returncode == 0, done.stderr
    return path
