"""What the tests on a GPU have in common. They need the library's own dependencies and nothing of tests/conftest.py.

`benchmarks/gpu.py` runs them where there may be no Snakemake. With CREDITFLOW_TEST_DEVICE=cpu they compare the CPU with
itself: so they are themselves tested on a machine without a GPU.
"""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from creditflow.compute.device import use_device


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test of this folder. If CREDITFLOW_TEST_CASES is set, so many cases of each function run."""
    most, seen, chosen = int(os.environ.get("CREDITFLOW_TEST_CASES", "1000000")), Counter[str](), []
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            function = item.nodeid.partition("[")[0]
            seen[function] += 1
            if seen[function] > most:
                continue
        chosen.append(item)
    items[:] = chosen


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The device to compare with the CPU, with the settings of a stage."""
    wanted = os.environ.get("CREDITFLOW_TEST_DEVICE", "cuda")
    if wanted == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return use_device(wanted, torch.get_num_threads())


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Has a GPU compute with all bits of a float32: TF32 keeps ten bits of them."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
