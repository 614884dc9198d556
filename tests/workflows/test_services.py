"""Runs in the real container and on a real SLURM; CREDITFLOW_SERVICES=1 says that both are there (see .ci/run)."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from creditflow.compute.container import digest_path
from creditflow.records.record import read_record
from creditflow.workflow.container import image_path
from helpers import ROOT, project
from helpers import snakemake as run_snakemake
from workflows.test_sign_symmetry_workflow import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("CREDITFLOW_SERVICES") != "1", reason="needs Apptainer, the image and a SLURM: .ci/run has them"
    ),
]

IMAGES = {
    flavour: image_path(ROOT / "containers", ROOT / "envs/requirements.txt", flavour) for flavour in ("cpu", "cuda")
}
FLAVOUR = next((flavour for flavour, image in IMAGES.items() if image.exists()), "cpu")
IMAGE = IMAGES[FLAVOUR]
APPTAINER = ["--apptainer-args=--userns", "--config", f"container={{flavour: {FLAVOUR}}}"]
SLURM = [
    "--workflow-profile",
    "profiles/slurm",
    "--default-resources",
    "slurm_partition=main",
    "mem_mb=attempt*2000",
    "runtime=attempt*10",
]
QUICKLY = [
    "--seconds-between-status-checks",
    "2",
    "--slurm-init-seconds-before-status-checks",
    "2",
    "--latency-wait",
    "20",
]

#: Snakemake as users start it.
snakemake = partial(run_snakemake, forked=False)

FEWER = (
    "rules: [bp, brsf]",
    "rules: [brsf]",
    "seeds: [0, 1]",
    "seeds: [0]",
    'gradients: [exact, feedback, "through:frsf", "through:frsf:2"]',
    "gradients: [exact]",
    TINY[TINY.index("  fgsm:\n") : TINY.index("tables:")],
    "  fgsm: {epsilons: [0, 0.1], images: 40, batch_size: 20}\n",
    "tables: {audit: {}, table1: {}, table3: {epsilon: 1}, figure2: {}}",
    "tables: {table1: {}}",
    "figures: {audit: {}, figure2: {}}",
    "figures: {}",
)


#: Every stage and every kind of attack, without repetitions: a job in a container loads its libraries anew.
ONCE = (
    'gradients: [exact, feedback, "through:frsf", "through:frsf:2"]',
    "gradients: [exact]",
    TINY[TINY.index("  fgsm:\n") : TINY.index("tables:")],
    """\
  fgsm: {rules: [brsf], seeds: [0], epsilons: [0, 0.1], images: 40, batch_size: 20}
  cascade:
    epsilons: [0.1]
    images: 30
    batch_size: 30
    settings: {transfer: {steps: 3}, apgd_scaled: {steps: 5}, square: {queries: 10}}
  boundary: {rules: [brsf], seeds: [0], epsilons: [1.0], images: 8, batch_size: 8, settings: {steps: 20}}
audit: {epsilons: [0.1], attacks: [cascade], claim: cascade}
""",
    "tables: {audit: {}, table1: {}, table3: {epsilon: 1}, figure2: {}}",
    "tables: {audit: {}}",
    "figures: {audit: {}, figure2: {}}",
    "figures: {audit: {}}",
)


def changed(*pairs: str) -> str:
    """Returns the tiny experiment with one text after the other replaced by its successor."""
    text = TINY
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def tiny_project(folder: Path, text: str = TINY) -> Path:
    project(folder, own_server=True, tiny=text)
    (folder / "containers" / IMAGE.name).symlink_to(IMAGE)
    shutil.copy(digest_path(IMAGE), folder / "containers")
    return folder


@pytest.fixture(scope="module")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, run by the environment of the tests."""
    folder = tiny_project(tmp_path_factory.mktemp("home"), changed(*ONCE))
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


def assert_same_results(folder: Path, at_home: Path, n: int) -> None:
    """The n records have the same numbers as outside, and each of them names the image."""
    paths = sorted((folder / "results/tiny").glob("*/high/**/seed*.json"))
    records = [path for path in paths if {"evaluate", "attack"} & set(path.parts)]
    assert len(records) == n
    for path in records:
        mine, theirs = read_record(path), read_record(at_home / path.relative_to(folder))
        assert mine.content["provenance"]["container"] == {
            "name": IMAGE.name,
            "sha256": digest_path(IMAGE).read_text(encoding="utf-8").split()[0],
        }
        assert theirs.content["provenance"]["container"] is None
        for one, other in zip(mine.metrics, theirs.metrics, strict=True):
            assert (one.metric, one.epsilon, one.n) == (other.metric, other.epsilon, other.n)
            assert one.value == pytest.approx(other.value, rel=1e-3, abs=1 / one.n), path


@pytest.fixture(scope="module")
def in_container(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny experiment, run in the container."""
    folder = tiny_project(tmp_path_factory.mktemp("container"), changed(*ONCE))
    done = snakemake(folder, "--use-apptainer", *APPTAINER, "--", "tiny")
    assert done.returncode == 0, done.stdout
    return folder


def test_every_stage_runs_in_the_container(at_home: Path, in_container: Path) -> None:
    assert_same_results(in_container, at_home, 10)


def test_every_stage_runs_on_the_cluster_without_accounting(at_home: Path, tmp_path: Path) -> None:
    """From the download to the table; of few records, as every job is two Snakemakes and a container of its own."""
    assert shutil.which("sacct") is None or subprocess.run(["sacct"], capture_output=True, check=False).returncode != 0
    folder = tiny_project(tmp_path, changed(*FEWER))
    done = snakemake(folder, *SLURM, *QUICKLY, *APPTAINER, "--", "tiny", timeout=900)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("has been submitted with SLURM jobid") == 5
    assert_same_results(folder, at_home, 2)
    assert (folder / "results/tiny/tables/table1.csv").read_text(encoding="utf-8").count(",brsf,") == 1


FINETUNED = "results/tiny/finetune/high/small_cnn/brsf/seed0.safetensors"


def epochs_of_last_run(model: Path) -> int:
    return int(json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))["run"]["epochs_of_this_run"])


@pytest.fixture(scope="module")
def long_training(in_container: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose next step is a fine-tuning of 120 epochs; what it starts from was made in the container."""
    folder = Path(shutil.copytree(in_container, tmp_path_factory.mktemp("long") / "copy", symlinks=True))
    longer = changed(*ONCE, "\n  settings: {epochs: 2,", "\n  settings: {epochs: 120,")
    (folder / "config/experiments/tiny.yaml").write_text(longer, encoding="utf-8")
    for path in (folder / "results/tiny").iterdir():
        if path.is_dir() and path.name != "pretrain":
            shutil.rmtree(path)
    return folder


def preempt() -> None:
    """Takes the whole node for a job of a partition that goes first."""
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"], check=True)


def test_a_job_that_the_cluster_stops_goes_on_from_its_checkpoint(long_training: Path, tmp_path: Path) -> None:
    """Cancelled in its third epoch or later, then preempted: resumed twice, and in the end the undisturbed model."""
    folder = Path(shutil.copytree(long_training, tmp_path / "copy", symlinks=True))
    log = folder / "results/tiny/logs/finetune/high/small_cnn/brsf/seed0.log"
    said = folder / "said.log"

    def first_epoch(text: str) -> int:
        """The number of the first epoch that a log of training names."""
        return int((re.findall(r"epoch (\d+):", text) or ["0"])[0])

    def wait_for(leg: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 240
        while not (log.exists() and leg(text := log.read_text(encoding="utf-8"))):
            assert process.poll() is None, said.read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return text

    command = [sys.executable, "-m", "snakemake", "--cores", "2", *SLURM, *QUICKLY, *APPTAINER, "--", FINETUNED]
    with said.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
        legs = [wait_for(lambda text: "epoch 2:" in text)]
        (submitted,) = re.findall(r"SLURM jobid '?(\d+)", said.read_text(encoding="utf-8"))
        subprocess.run(["scancel", submitted], check=True)
        legs.append(wait_for(lambda text: first_epoch(text) > 2))
        preempt()
        assert process.wait(timeout=400) == 0, said.read_text(encoding="utf-8")
    legs.append(log.read_text(encoding="utf-8"))
    assert ["epoch 120:" in leg for leg in legs] == [False, False, True]
    begun = [first_epoch(leg) for leg in legs]
    assert begun[0] == 1 < begun[1] < begun[2], begun
    assert epochs_of_last_run(folder / FINETUNED) == 120 - begun[2] + 1

    done = snakemake(long_training, "--use-apptainer", *APPTAINER, "--", FINETUNED)
    assert done.returncode == 0, done.stdout
    assert epochs_of_last_run(long_training / FINETUNED) == 120
    assert (folder / FINETUNED).read_bytes() == (long_training / FINETUNED).read_bytes()


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
