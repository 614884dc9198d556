"""Fixtures that more than one file uses."""

import gc
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

# While modules load and tests are collected, nothing becomes garbage.
gc.disable()

import pytest
import torch
from filelock import FileLock

from helpers import TINY_TRAINING, share_servers, stage

torch.set_num_threads(1)
#: Python searches for garbage after so many new objects. After 700, as usual, it takes a tenth of the tests' time.
MANY_OBJECTS = 50_000


def _without_variables_of_the_compiler() -> None:
    """Takes away what `torch.compile` exports: a stage that inherits it would start once more to be rid of it."""
    for name in [name for name in os.environ if name.startswith("TORCHINDUCTOR_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _no_variables_of_the_compiler() -> Iterator[None]:
    yield
    _without_variables_of_the_compiler()


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        share_servers()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(MANY_OBJECTS)
    gc.enable()
    _without_variables_of_the_compiler()  # of modules of tests that export networks


# A shell makes what it starts in the background deaf to Ctrl-C, and so would be what the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


#: Files without a slow test that take five seconds or more, as they have so many tests.
LONG = (
    *("attacks/test_attacks", "attacks/test_strong_attacks", "data/test_damaged_files"),
    *("data/test_imagenet", "faults/test_environment", "faults/test_modes", "instrument/test_audit"),
    *("models/test_published_weights", "populations/test_populations", "populations/test_target_propagation"),
    *("reporting/test_reporting", "reporting/test_sal_reporting", "training/test_training_stages"),
    *("verdict/test_networks", "workflow/test_dependence", "workflow/test_experiments", "workflow/test_forkserver"),
    *("workflows/test_environment",),
)


#: Files of tests that wait most of the time, for a lock or a server that never answers. They come before all others:
#: while other things run, waiting costs nothing.
WAITING = ("compute/test_gpus", "faults/test_waits", "workflow/test_cheaper")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that wait come first, then those with slow tests, then long ones: at the end no core waits for one file."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    waiting, long = ({Path(__file__).parent / f"{name}.py" for name in names} for names in (WAITING, LONG))
    assert all(path.is_file() for path in waiting | long), "LONG or WAITING names a file that is not there"
    items.sort(key=lambda item: (item.path not in waiting, item.path not in slow, item.path not in long))


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Returns (name, build) -> a folder that `build` has filled, once for all processes of the tests.

    Whoever changes something takes a copy.
    """
    common = tmp_path_factory.getbasetemp()
    if common.name.startswith("popen-"):  # a process of pytest-xdist; the folder above is that of the whole run
        common = common.parent

    def built(name: str, build: Callable[[Path], None]) -> Path:
        folder = common / "built_once" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                unfinished = folder.with_suffix(".unfinished")
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                build(unfinished)
                unfinished.rename(folder)
        return folder

    return built


@pytest.fixture(scope="session")
def digits(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The digits dataset, fetched and prepared by the stages themselves."""

    def build(folder: Path) -> None:
        for name, arguments in (
            ("fetch", ["--output", folder / "raw"]),
            ("prepare", ["--raw", folder / "raw", "--output", folder / "prepared.safetensors"]),
        ):
            done = stage(name, "--dataset", "digits", *arguments)
            assert done.returncode == 0, done.stderr

    return built_once("digits", build) / "prepared.safetensors"


@pytest.fixture(scope="session")
def pretrained(digits: Path, built_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A small CNN trained on digits 0 to 4 by the stage itself."""

    def build(folder: Path) -> None:
        output = ["--settings", TINY_TRAINING, "--output", folder / "model.safetensors"]
        done = stage(
            "pretrain", "--data", digits, "--classes", "0", "1", "2", "3", "4", "--backbone", "small_cnn", *output
        )
        assert done.returncode == 0, done.stderr

    return built_once("pretrained", build) / "model.safetensors"
