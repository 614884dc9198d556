"""CIFAR-10 and CIFAR-100, whose pickles may do no harm."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creditflow.core.errors import UserError
from formats import cifar10, cifar100
from preparing import Stages, check_arrays, check_refused


def without(key: bytes) -> Callable[[dict[bytes, Any]], dict[bytes, Any]]:
    return lambda batch: {name: value for name, value in batch.items() if name != key}


WRONG = {
    "cifar10 no labels": (
        "cifar10",
        lambda: cifar10(without(b"labels")),
        "data_batch_2 is not what CIFAR has.*'labels'",
    ),
    "cifar10 no data": (
        "cifar10",
        lambda: cifar10(without(b"data")),
        "data_batch_2 is not what CIFAR has.*no array 'data'",
    ),
    "cifar10 label 10": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [10] * 10}),
        r"labels must lie in 0\.\.9, not 0\.\.10",
    ),
    "cifar10 label -1": ("cifar10", lambda: cifar10(lambda b: b | {b"labels": [-1] * 10}), r"not -1\.\.9"),
    "cifar10 label nan": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [float("nan")] * 10}),
        "no list of numbers 'labels'",
    ),
    "cifar10 3 labels": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"labels": [1] * 3}),
        r"shape \(10, 3072\) and 3 labels",
    ),
    "cifar10 grey": (
        "cifar10",
        lambda: cifar10(lambda b: b | {b"data": np.zeros((10, 1024), np.uint8)}),
        r"shape \(10, 1024\)",
    ),
    "cifar10 floats": ("cifar10", lambda: cifar10(lambda b: b | {b"data": np.zeros((10, 3072))}), "an array of b'f8'"),
    "cifar10 a list": ("cifar10", lambda: cifar10(lambda b: [1, 2]), "it is a list"),
    "cifar10 one batch short": (
        "cifar10",
        lambda: cifar10(leave_out="data_batch_4"),
        "does not contain cifar-10-batches-py/data_batch_4",
    ),
    "cifar100 as cifar10": (
        "cifar100",
        lambda: ({"cifar-100-python.tar.gz": cifar10()[0]["cifar-10-python.tar.gz"]}, {}),
        "does not contain",
    ),
    "cifar100 99 names": ("cifar100", lambda: cifar100(n_names=99), "has 99 fine labels, not 100"),
    "cifar100 label 102": ("cifar100", lambda: cifar100(n_labels=103), r"labels must lie in 0\.\.99"),
}


@pytest.mark.parametrize("case", WRONG)
def test_cifar_with_something_else_in_its_archive_is_refused(case: str, stages: Stages) -> None:
    name, make, message = WRONG[case]
    check_refused(name, make()[0], message, stages)


def test_cifar_may_be_pickled_by_a_newer_python(stages: Stages) -> None:
    files, expected = cifar10(dump=lambda value: pickle.dumps(value, protocol=2))
    check_arrays(stages.fetch_and_prepare("cifar10", files), expected)


class Attack:
    """Does something when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ["touch {}"]),
        (eval, ["open({!r}, 'w')"]),
        (Path.touch, []),
        (np.fromfile, ["{}"]),
        (getattr, [b"", "join"]),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_malicious_pickle_does_nothing(
    function: Callable[..., Any], arguments: list[Any], protocol: int, stages: Stages
) -> None:
    mark = stages.folder / "mark"
    attack = Attack(
        function, *[word.format(str(mark)) if isinstance(word, str) else word for word in arguments or [mark]]
    )
    for spoil in (lambda batch: batch | {b"data": attack}, lambda batch: attack):
        stages.fetch("cifar10", cifar10(spoil, dump=lambda value: pickle.dumps(value, protocol=protocol))[0])
        with pytest.raises(UserError, match=r"data_batch_\d is not what CIFAR has there \(.*no CIFAR archive needs"):
            stages.prepare("cifar10")
    assert not mark.exists()
