"""GPU slots: jobs of one machine take turns, and a job that was given a GPU does not fall back to the CPU."""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from creditflow.compute import gpus
from creditflow.core.errors import UserError
from helpers import ROOT, stage

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
        encoding="utf-8",
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
    first_two = sorted(held, key=lambda holding: holding[1])[:2]
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


WAITING = """
import sys
sys.path.insert(0, {source!r})
from creditflow.compute import gpus
from creditflow.core.errors import UserError
from creditflow.core.errors import UserError
gpus._REMINDER_S, gpus._PATIENCE_S = 0.5, 1.2
try:
    gpus.take_slot()
except UserError as error:
    print(error)
"""


def test_a_job_that_waits_says_whom_it_waits_for_and_not_for_ever(tmp_path: Path) -> None:
    first = job(tmp_path, 60, CREDITFLOW_GPUS="3")
    assert first.stdout is not None and first.stdout.readline() == "holds 3\n"
    command = [sys.executable, "-c", WAITING.format(source=str(ROOT / "src"))]
    environment = {key: value for key, value in os.environ.items() if key != gpus.VISIBLE}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment | {"CREDITFLOW_GPUS": "3"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    first.kill()
    first.communicate()
    holder = f"they are held by process {first.pid} (-c)"
    reminders = done.stderr.splitlines()
    assert len(reminders) > 1 and set(reminders) == {f"warning: all 1 GPU slots are taken; {holder}; waiting"}
    assert done.stdout.startswith(f"no GPU slot became free in 1.2 s; {holder}; stop what hangs")


@pytest.mark.parametrize("environment", [{}, {"CREDITFLOW_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": ""}])
def test_without_slots_or_under_a_scheduler_nothing_is_taken(tmp_path: Path, environment: dict[str, str]) -> None:
    assert outcome(job(tmp_path, 0, **environment))[0] == "None"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with three GPUs, as far as nvidia-smi goes."""
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n2\\n'\n", encoding="utf-8")
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


@pytest.mark.usefixtures("nvidia_smi")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("", "nvidia-smi lists no GPU"),
        ("echo NVIDIA-SMI has failed; exit 9", "nvidia-smi fails (NVIDIA-SMI has failed)"),
        ("exit 9", "nvidia-smi fails (exit code 9)"),
        ("exec sleep 20", "nvidia-smi does not answer within 0.3 s"),
        (None, "there is no nvidia-smi"),
    ],
)
def test_a_machine_without_gpus_says_what_nvidia_smi_does(
    script: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpus, "_SMI_S", 0.3)
    if script is None:
        (tmp_path / "nvidia-smi").unlink()
    else:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"gpu=2 is asked for, but {reason} on this machine")):
        gpus.announce_slots(2)
    assert gpus.SLOTS not in os.environ


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
