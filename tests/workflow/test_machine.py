"""What the workflow needs of a machine: GPU slots, programs, and what is said when jobs die."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from creditflow.compute import gpus
from creditflow.core.errors import UserError
from creditflow.workflow import preflight
from creditflow.workflow.failures import explain_failures
from helpers import ROOT, project, snakemake, stage

JOB = """
import os, sys, time
sys.path.insert(0, {source!r})
from creditflow.compute.gpus import take_slot
gpu = take_slot()
begin = time.monotonic()
assert os.environ.get("CUDA_VISIBLE_DEVICES", "") == (gpu or "")
print("holds", gpu, flush=True)
time.sleep({hold})
print(begin, time.monotonic())
"""


def job(folder: Path, hold: float, **environment: str) -> "subprocess.Popen[str]":
    """A process that takes a GPU slot, holds it for some seconds, and prints the GPU and the times."""
    clean = {key: value for key, value in os.environ.items() if key not in (gpus.SLOTS, gpus.VISIBLE)}
    code = JOB.format(source=str(ROOT / "src"), hold=hold)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(process: "subprocess.Popen[str]") -> tuple[str, float, float]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    _, gpu, begin, end = out.split()
    return gpu, float(begin), float(end)


def test_parallel_jobs_share_the_slots_and_never_one_of_them(tmp_path: Path) -> None:
    held = [outcome(process) for process in [job(tmp_path, 1.0, CREDITFLOW_GPUS="0,1") for _ in range(4)]]
    assert {gpu for gpu, _, _ in held} == {"0", "1"}
    for slot in ("0", "1"):
        times = sorted((begin, end) for gpu, begin, end in held if gpu == slot)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(times))
    first_two = sorted(held, key=lambda one: one[1])[:2]
    assert {gpu for gpu, _, _ in first_two} == {"0", "1"}  # nobody waits while a slot is free


def test_a_killed_jobs_slot_is_free_at_once(tmp_path: Path) -> None:
    first = job(tmp_path, 60, CREDITFLOW_GPUS="3")
    assert first.stdout is not None
    assert first.stdout.readline() == "holds 3\n"
    second = job(tmp_path, 0, CREDITFLOW_GPUS="3")
    time.sleep(1)
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert outcome(second)[0] == "3"


@pytest.mark.parametrize("environment", [{}, {"CREDITFLOW_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": ""}])
def test_without_slots_or_under_a_scheduler_nothing_is_taken(tmp_path: Path, environment: dict[str, str]) -> None:
    assert outcome(job(tmp_path, 0, **environment))[0] == "None"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with three GPUs, as far as nvidia-smi goes."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in (gpus.SLOTS, gpus.VISIBLE):
        monkeypatch.setenv(name, "")  # so that what the code sets is undone
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("count", "visible", "slots"),
    [(2, None, "0,1"), (3, None, "0,1,2"), (5, None, "0,1,2,0,1"), (2, "2,GPU-ab", "2,GPU-ab"), (4, "1,2", "1,2,1,2")],
)
def test_slots_go_round_the_gpus_that_the_user_left_visible(
    count: int, visible: str | None, slots: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible:
        monkeypatch.setenv(gpus.VISIBLE, visible)
    gpus.announce_slots(count)
    assert os.environ[gpus.SLOTS] == slots
    assert gpus.VISIBLE not in os.environ  # else each job would take it for a scheduler's choice


@pytest.mark.parametrize("promised", ["0", "GPU-1234"])
def test_a_job_that_was_given_a_gpu_does_not_quietly_use_the_cpu(
    digits: Path, tmp_path: Path, promised: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv(gpus.VISIBLE, promised)
    arguments = [
        "--data",
        digits,
        "--backbone",
        "small_cnn",
        "--settings",
        '{"epochs": 1, "batch_size": 32, "learning_rate": 0.1}',
    ]
    done = stage("pretrain", *arguments, "--output", tmp_path / "model.safetensors")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"CUDA_VISIBLE_DEVICES={promised} promises a GPU" in done.stderr
    done = stage("pretrain", *arguments, "--output", tmp_path / "model.safetensors", "--device", "cpu")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (preflight.check_apptainer, [], "apptainer is not installed"),
        (preflight.check_slurm, ["squeue"], "needs sbatch, squeue, scancel"),
    ],
)
def test_missing_programs_are_named(  # type: ignore[no-untyped-def]
    check, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=message):
        check(*arguments)


def test_sacct_that_cannot_answer_is_refused_before_it_makes_anyone_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("sbatch", "squeue", "scancel", "sacct"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    preflight.check_slurm("squeue")
    with pytest.raises(
        UserError, match=r"sacct does not answer .*storage is disabled.* use `slurm-status-command: squeue`"
    ):
        preflight.check_slurm("sacct")


def test_containers_see_the_folders_that_hold_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_BIND", "/scratch")
    (tmp_path / "link").symlink_to(tmp_path)
    preflight.bind_into_containers([str(tmp_path / "link"), str(tmp_path / "missing")])
    assert os.environ["APPTAINER_BIND"] == f"/scratch,{tmp_path}:{tmp_path}:ro"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--workflow-profile", "profiles/gpu"],
            "error: gpu=1 is asked for, but nvidia-smi lists no GPU on this machine",
        ),
        (["--workflow-profile", "profiles/slurm"], "error: containers are asked for, but apptainer is not installed"),
        (["--executor", "slurm", "--jobs", "1"], "error: the slurm executor needs sbatch, squeue, scancel"),
    ],
)
def test_a_profile_that_asks_for_what_is_not_there_ends_before_any_job(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "which", "git", "uname"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "project").mkdir()
    folder = project(tmp_path / "project")
    assert snakemake(folder, *arguments, "--sdm", "env-modules", "-n").returncode == 0  # looking is allowed anywhere
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    done = snakemake(folder, *arguments)
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert line.startswith(message)
    assert not (folder / "results").exists()


# --- why jobs failed ---------------------------------------------------------------------------------------------

FAILED = """\
[Sat Nov 21 06:16:17 2026]
Error in rule {rule}:
    message: {message}For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 0
    log: {log} (check log file(s) for error details)
    shell:
        python src/{rule}.py > {log} 2>&1
        (command exited with non-zero exit code)

[Sat Nov 21 06:16:18 2026]
Finished jobid: 3 (Rule: other)
"""

FAILED_JOB = "SLURM-job '3' failed, SLURM status is: 'FAILED'. "
REFUSED = "SLURM sbatch failed. The error message was '{}'.\n"


@pytest.mark.parametrize(
    ("message", "stage_log", "slurm_log", "expected"),
    [
        (
            "",
            "epoch 1\nerror: model.json is not a sidecar; delete it\n",
            None,
            "model.json is not a sidecar; delete it",
        ),
        ("", "epoch 1: loss 2\n", None, "ended without a word, as a process killed for lack of memory does"),
        ("", None, None, "ended without a word"),
        (
            "",
            "Traceback (most recent call last):\n  File x\nValueError: no\n",
            None,
            "ValueError: no (a defect of creditflow",
        ),
        (FAILED_JOB.replace("FAILED", "OUT_OF_MEMORY"), "epoch 1\n", "", "killed for lack of memory; raise its mem_mb"),
        (FAILED_JOB, "", "slurmstepd: error: Detected 1 oom_kill event", "killed for lack of memory"),
        (FAILED_JOB, "", "slurmstepd: error: Exceeded job memory limit", "killed for lack of memory"),
        (FAILED_JOB.replace("FAILED", "TIMEOUT"), "", "", "out of time; raise its runtime"),
        (FAILED_JOB.replace("FAILED", "CANCELLED"), "", "", "SLURM ended the job (CANCELLED)"),
        (
            REFUSED.format("sbatch: error: invalid partition specified: x\nsbatch: error: y"),
            None,
            None,
            "the cluster has no partition x; name one that `sinfo` lists",
        ),
        (REFUSED.format("sbatch: error: no nodes"), None, None, "sbatch refused the job: sbatch: error: no nodes"),
    ],
)
def test_each_failed_job_is_explained_in_one_line(
    message: str, stage_log: str | None, slurm_log: str | None, expected: str, tmp_path: Path
) -> None:
    paths = [tmp_path / "stage.log"]
    if stage_log is not None:
        paths[0].write_text(stage_log)
    if slurm_log is not None:
        paths.append(tmp_path / "3.log")
        paths[1].write_text(slurm_log)
    first_attempt = FAILED.format(rule="finetune", message="SLURM status is: 'TIMEOUT'. ", log=paths[0])
    text = first_attempt + FAILED.format(rule="finetune", message=message, log=", ".join(map(str, paths)))
    (line,) = explain_failures(text)
    assert line.startswith(f"error: finetune {paths[0]}: {expected}")


def test_jobs_that_succeeded_need_no_explanation() -> None:
    assert explain_failures("[Sat Nov 21 06:16:18 2026]\nFinished jobid: 3 (Rule: other)\n") == []
