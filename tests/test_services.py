"""Runs in the real container and on a real SLURM; CREDITFLOW_SERVICES=1 says that both are there (see .ci/run)."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from creditflow.image import digest_path, image_path
from creditflow.records import read_record
from helpers import ROOT, project, snakemake
from test_workflow import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("CREDITFLOW_SERVICES") != "1", reason="needs Apptainer, the image and a SLURM: .ci/run has them"),
]

IMAGES = {flavour: image_path(ROOT / "containers", ROOT / "envs/requirements.txt", flavour) for flavour in ("cpu", "cuda")}
FLAVOUR = next((flavour for flavour, image in IMAGES.items() if image.exists()), "cpu")
IMAGE = IMAGES[FLAVOUR]
APPTAINER = ["--apptainer-args=--userns", "--config", f"container={{flavour: {FLAVOUR}}}"]
SLURM = ["--workflow-profile", "profiles/slurm", "--default-resources", "slurm_partition=main", "mem_mb=attempt*2000", "runtime=attempt*10"]
QUICKLY = ["--seconds-between-status-checks", "2", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "20"]


def tiny_project(folder: Path, text: str = TINY) -> Path:
    project(folder, tiny=text)
    (folder / "containers" / IMAGE.name).symlink_to(IMAGE)
    shutil.copy(digest_path(IMAGE), folder / "containers")
    return folder


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, run by the environment of the tests."""
    folder = tiny_project(tmp_path_factory.mktemp("home"))
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


def assert_same_results(folder: Path, at_home: Path) -> None:
    """Same numbers as outside, every record naming the image, and nothing written outside the working directory."""
    paths = sorted((folder / "results/tiny").glob("*/high/**/seed*.json"))
    records = [path for path in paths if {"evaluate", "attack"} & set(path.parts)]
    assert len(records) == 20
    for path in records:
        mine, theirs = read_record(path), read_record(at_home / path.relative_to(folder))
        assert mine.content["provenance"]["container"] == {"name": IMAGE.name, "sha256": digest_path(IMAGE).read_text().split()[0]}
        assert theirs.content["provenance"]["container"] is None
        for one, other in zip(mine.metrics, theirs.metrics, strict=True):
            assert (one.metric, one.epsilon, one.n) == (other.metric, other.epsilon, other.n)
            assert one.value == pytest.approx(other.value, rel=1e-3, abs=1 / one.n), path


def test_every_stage_runs_in_the_container(at_home: Path, tmp_path: Path) -> None:
    folder = tiny_project(tmp_path)
    done = snakemake(folder, "--use-apptainer", *APPTAINER, "--", "tiny")
    assert done.returncode == 0, done.stdout
    assert_same_results(folder, at_home)


def test_every_stage_runs_on_the_cluster_without_accounting(at_home: Path, tmp_path: Path) -> None:
    assert shutil.which("sacct") is None or subprocess.run(["sacct"], capture_output=True, check=False).returncode != 0
    folder = tiny_project(tmp_path)
    done = snakemake(folder, *SLURM, *QUICKLY, *APPTAINER, "--", "tiny", timeout=900)
    assert done.returncode == 0, done.stdout
    assert "has been submitted with SLURM jobid" in done.stdout
    assert_same_results(folder, at_home)


def cancel(job: str) -> None:
    subprocess.run(["scancel", job], check=True)


def preempt(job: str) -> None:
    """Takes the whole node for a job of a partition that goes first."""
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"], check=True)


@pytest.mark.parametrize("stop", [cancel, preempt])
def test_a_job_that_the_cluster_stops_goes_on_from_its_checkpoint(stop: Callable[[str], None], tmp_path: Path) -> None:
    """Stopped in its third epoch: started again, resumed there, and in the end the model of an undisturbed run."""
    longer = TINY.replace("finetune: {datasets: [high], settings: {epochs: 2", "finetune: {datasets: [high], settings: {epochs: 60")
    folder = tiny_project(tmp_path, longer)
    name = "finetune/high/small_cnn/brsf/seed0"
    model, log = folder / f"results/tiny/{name}.safetensors", folder / f"results/tiny/logs/{name}.log"
    target = str(model.relative_to(folder))
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *SLURM, *QUICKLY, *APPTAINER, "--", target]
    with (folder / "first.log").open("w") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        deadline = time.monotonic() + 240
        while not (log.exists() and "epoch 2:" in log.read_text()):
            assert process.poll() is None, (folder / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        submitted = re.findall(r"SLURM jobid '?(\d+)", (folder / "first.log").read_text())
        first_leg = log.read_text()
        stop(submitted[-1])
        assert process.wait(timeout=400) == 0, (folder / "first.log").read_text()
    assert "epoch 60:" not in first_leg
    second_leg = log.read_text()
    assert "epoch 1:" not in second_leg
    assert "epoch 60:" in second_leg
    resumed = model.read_bytes()
    assert 0 < json.loads(model.with_suffix(".json").read_text())["run"]["epochs_of_this_run"] <= 58

    done = snakemake(folder, "--use-apptainer", *APPTAINER, "--force", "--", target)
    assert done.returncode == 0, done.stdout
    assert json.loads(model.with_suffix(".json").read_text())["run"]["epochs_of_this_run"] == 60
    assert model.read_bytes() == resumed


PREPARE = "results/data/digits/prepared.safetensors"


def last_error(text: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    return line


def test_a_partition_that_does_not_exist_ends_the_workflow_and_is_named(tmp_path: Path) -> None:
    folder = tiny_project(tmp_path)
    wrong = [part.replace("slurm_partition=main", "slurm_partition=nowhere") for part in SLURM]
    done = snakemake(folder, *wrong, *QUICKLY, *APPTAINER, "--retries", "0", "--", PREPARE, timeout=180)
    assert done.returncode != 0
    assert last_error(done.stdout).endswith(
        "the cluster has no partition nowhere; name one that `sinfo` lists as slurm_partition in the profile"
    )


def test_a_job_killed_for_memory_is_named_and_a_retry_gets_more(tmp_path: Path) -> None:
    folder = tiny_project(tmp_path)
    scarce = [*SLURM, *QUICKLY, *APPTAINER, "--set-resources", "prepare:mem_mb=100 + (attempt - 1) * 1900"]
    done = snakemake(folder, *scarce, "--retries", "0", "--", PREPARE, timeout=180)
    assert done.returncode != 0
    assert last_error(done.stdout).endswith("killed for lack of memory; raise its mem_mb in the profile")
    assert not (folder / PREPARE).exists()
    done = snakemake(folder, *scarce, "--retries", "1", "--", PREPARE, timeout=180)
    assert done.returncode == 0, done.stdout
    assert "Trying to restart job" in done.stdout


def test_a_status_command_that_cannot_answer_is_refused(tmp_path: Path) -> None:
    """SLURM's packages bring a `sacct` that fails without slurmdbd: Snakemake would wait for ever."""
    folder = tiny_project(tmp_path)
    done = snakemake(folder, *SLURM, *QUICKLY, *APPTAINER, "--slurm-status-command", "sacct", "--", PREPARE, timeout=60)
    assert done.returncode == 2
    assert "use `slurm-status-command: squeue` in the profile" in last_error(done.stdout)
