"""Clocks that disagree: what one machine wrote lies in another's future or past."""

import os
import shutil
import time
from pathlib import Path

import pytest

from faults.conftest import Whole, snapshot
from helpers import snakemake

pytestmark = pytest.mark.slow

SKEW = 3600


@pytest.fixture
def copy(whole: Whole, tmp_path: Path) -> Path:
    """A copy in which times follow the order of jobs."""
    return Path(shutil.copytree(whole.untouched, tmp_path / "copy", symlinks=True))


def shift(path: Path, seconds: float) -> None:
    at = time.time() + seconds
    os.utime(path, (at, at))


def test_an_input_from_the_future_makes_its_job_run_again_and_the_results_are_the_same(
    whole: Whole, copy: Path
) -> None:
    shift(copy / "results/cells/pretrain/small_cnn/seed0.safetensors", SKEW)
    done = snakemake(copy, "cells", "many")
    assert done.returncode == 0, done.stdout
    assert snapshot(copy) == whole.files


def move(folder: Path, seconds: int) -> None:
    for path in (folder / "results").rglob("*"):
        if path.is_file():
            before = path.stat()
            os.utime(path, ns=(before.st_atime_ns + seconds * 10**9, before.st_mtime_ns + seconds * 10**9))


def test_what_a_clock_that_is_ahead_wrote_is_up_to_date_but_no_job_builds_on_it(whole: Whole, copy: Path) -> None:
    move(copy, SKEW)
    done = snakemake(copy, "-n", "cells", "many")
    assert "Nothing to be done" in done.stdout, done.stdout
    tables = list((copy / "results/cells/tables").glob("table1.*"))
    for path in tables:
        path.unlink()
    done = snakemake(copy, "cells", "many")
    assert done.returncode != 0
    assert "This could indicate a clock skew problem" in done.stdout
    assert done.stdout.rstrip().rpartition("\n")[2].startswith("error: make_table: results/cells/summary.parquet comes")
    assert not any(path.exists() for path in tables)
    move(copy, -SKEW)  # as docs/troubleshooting.md says
    done = snakemake(copy, "cells", "many")
    assert done.returncode == 0, done.stdout
    assert snapshot(copy) == whole.files
