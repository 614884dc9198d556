"""Disks that are full and folders that cannot be written.

There is one line, nothing half-written, and the same files once there is room.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.conftest import CRASH, STAGES, Job, Whole
from helpers import snakemake

pytestmark = pytest.mark.slow


def on_screen(job: Job) -> Job:
    """The job without its log, which could not be written either."""
    return Job(job.rule, job.outputs, job.command.rpartition(" > ")[0], job.seconds)


def check_one_line(status: int, said: str, words: str) -> None:
    assert status == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: ") and words in last, said
    assert "Traceback" not in said


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(whole: Whole, stage: str) -> None:
    job = max(whole.jobs[stage], key=lambda one: max(sizes(whole, one)))
    limit = max(sizes(whole, job)) // 2
    whole.forget(job)
    status, said = whole.run(on_screen(job), full_beyond=limit)
    check_one_line(status, said, "File too large")
    whole.check_nothing_is_half_written(job)
    assert not [path for path in (whole.folder / "results").rglob("*") if ".part" in path.name]
    whole.make_again(job)


def sizes(whole: Whole, job: Job) -> list[int]:
    outputs = [path for path in whole.files if any(path.is_relative_to(output) for output in job.outputs)]
    return [(whole.folder / path).stat().st_size for path in outputs]


@pytest.fixture
def read_only(whole: Whole) -> Iterator[Path]:
    folders = [path for path in (whole.folder / "results").rglob("*") if path.is_dir()]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    yield whole.folder / "results"
    for folder in folders:
        folder.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("stage", ["prepare", "pretrain", "attack", "train_population", "collect", "plot_figure"])
def test_a_results_folder_that_is_read_only(whole: Whole, read_only: Path, stage: str) -> None:
    job = on_screen(whole.jobs[stage][0])
    status, said = whole.run(job, without_privilege=True)
    check_one_line(status, said, "Permission denied")
    assert str(job.outputs[0].parent.parts[1]) in said  # it names the place
    assert whole.snapshot() == whole.files


def test_a_workflow_in_a_read_only_results_folder_ends_and_changes_nothing(
    whole: Whole, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WITHOUT_PRIVILEGE", "1")
    done = snakemake(whole.folder, "--force", "results/cells/tables/table1.csv", runner=CRASH / "run.py")
    assert done.returncode != 0
    assert "Permission denied" in done.stdout
    assert whole.snapshot() == whole.files
