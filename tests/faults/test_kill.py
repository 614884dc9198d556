"""kill -9 and SIGTERM at any moment of any stage: the same command then makes the same files."""

import os
import random
import signal
import subprocess
import time

import pytest

from faults.conftest import STAGES, Job, Whole

pytestmark = pytest.mark.slow


def choose(whole: Whole, rng: random.Random, stage: str) -> Job:
    return rng.choice(whole.jobs[stage])


def kill_at_a_moment(whole: Whole, job: Job, rng: random.Random) -> None:
    """Kills it while it works, rather than while it loads its libraries: it is a fork, whose end closes its output."""
    process = whole.start(job, forked=True)
    try:
        process.communicate(timeout=rng.uniform(0.2, 1.0) * job.seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


def kill_at_a_change_of_a_file(whole: Whole, job: Job, rng: random.Random) -> None:
    at = rng.randint(1, 12)
    while (status := whole.run(job, crash_at=at)[0]) == 0:  # it has fewer
        assert at > 1
        at //= 2
        whole.forget(job)
    assert status == 128 + signal.SIGKILL


@pytest.mark.parametrize("stage", STAGES)
def test_killed_jobs_end_like_undisturbed_ones(whole: Whole, stage: str) -> None:
    """Each stage is killed at a change of a file, and right after that at a moment."""
    rng = random.Random(STAGES.index(stage))
    job = choose(whole, rng, stage)
    whole.forget(job)
    for kill in (kill_at_a_change_of_a_file, kill_at_a_moment):
        kill(whole, job, rng)
        whole.check_nothing_is_half_written(job)
    whole.make_again(job)
    assert not [path for path in (whole.folder / "results").rglob("*") if ".part" in path.name]
    assert not list((whole.folder / "results").rglob("*.checkpoint"))


@pytest.mark.parametrize("stage", ["pretrain", "train_population"])
def test_a_schedulers_sigterm_is_answered_in_one_line_and_training_goes_on_later(whole: Whole, stage: str) -> None:
    job = choose(whole, random.Random(1), stage)
    whole.forget(job)
    process = whole.start(job, forked=stage == "train_population")
    deadline = time.monotonic() + 300
    checkpoint = whole.folder / job.command.partition(" --checkpoint ")[2].split()[0]
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=60)  # of the shell, which does not wait for what it started
    log, expected = (
        whole.folder / job.command.rpartition(" > ")[2].split()[0],
        "stopped by SIGTERM; run the same command again to go on\n",
    )
    while not log.read_text(encoding="utf-8").endswith(expected):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.005)
    assert "Traceback" not in log.read_text(encoding="utf-8")
    whole.check_nothing_is_half_written(job)
    status, said = whole.run(job, forked=True)
    assert status == 0, said
    assert "epoch 1:" not in said, "it started again"
    assert whole.snapshot() == whole.files
