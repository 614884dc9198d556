"""The stage finetune: it is killed, interrupted, started twice, and given what does not fit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from creditflow.core import files
from creditflow.models.storage import load_model
from helpers import ROOT, TINY_TRAINING, as_forks, stage


def finetune(digits: Path, pretrained: Path, rule: str, output: Path, *more: str | Path) -> list[str]:
    arguments = ["--data", digits, "--classes", "5", "6", "7", "8", "9", "--pretrained", pretrained, "--rule", rule]
    return [*map(str, arguments), "--output", str(output), *map(str, more)]


def started(source: Path, arguments: list[str], **streams: int) -> "subprocess.Popen[str]":
    """Starts the stage as a fork, whose end closes its output."""
    command = ["bash", "-c", f'{as_forks()}python "$@"', "bash", str(source / "finetune.py"), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", start_new_session=True, **streams)


def kill_once_there_is(checkpoint: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 600
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_kill_9_in_the_middle_then_the_same_command(digits: Path, pretrained: Path, rule: str, tmp_path: Path) -> None:
    longer = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 12})
    undisturbed, killed = tmp_path / "undisturbed.safetensors", tmp_path / "killed.safetensors"
    options = ["--settings", longer, "--seed", "2"]
    done = stage("finetune", *finetune(digits, pretrained, rule, undisturbed, *options))
    assert done.returncode == 0, done.stderr

    checkpoint = tmp_path / "resume" / "checkpoint"
    arguments = finetune(digits, pretrained, rule, killed, *options, "--checkpoint", checkpoint)
    kill_once_there_is(checkpoint, started(ROOT / "src", arguments))
    assert not killed.exists()
    done = stage("finetune", *arguments)
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" not in done.stdout  # it went on, it did not start again
    for suffix in (".safetensors", ".feedback.safetensors"):
        assert killed.with_suffix(suffix).read_bytes() == undisturbed.with_suffix(suffix).read_bytes()
    assert not checkpoint.exists()
    sidecars = [json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) for path in (undisturbed, killed)]
    assert sidecars[0].pop("run")["epochs_of_this_run"] == 12
    assert sidecars[1].pop("run")["epochs_of_this_run"] < 12
    assert sidecars[0].pop("seal") != sidecars[1].pop("seal")
    assert sidecars[0] == sidecars[1]
    assert load_model(killed).spec.n_classes == 5


def test_ctrl_c_says_how_to_go_on(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    longer = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 100})
    checkpoint = tmp_path / "checkpoint"
    arguments = finetune(
        digits, pretrained, "bp", tmp_path / "model.safetensors", "--settings", longer, "--checkpoint", checkpoint
    )
    command = [sys.executable, ROOT / "src/finetune.py", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1] == "interrupted; run the same command again to go on"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint.lock"]


def test_a_second_process_does_not_touch_a_job_that_still_runs(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    arguments = finetune(
        digits,
        pretrained,
        "bp",
        tmp_path / "model.safetensors",
        "--settings",
        TINY_TRAINING,
        "--checkpoint",
        checkpoint,
    )
    with files.only_one_writer(checkpoint):
        done = stage("finetune", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: another process works on {checkpoint}; wait until it ends")
    assert not (tmp_path / "model.safetensors").exists()
    assert stage("finetune", *arguments).returncode == 0


def test_other_code_does_not_go_on_from_a_checkpoint(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    source = shutil.copytree(ROOT / "src", tmp_path / "src")
    checkpoint = tmp_path / "checkpoint"
    longer = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 8})
    arguments = finetune(
        digits, pretrained, "usf", tmp_path / "model.safetensors", "--settings", longer, "--checkpoint", checkpoint
    )
    kill_once_there_is(checkpoint, started(source, arguments))
    rule = source / "creditflow/feedback/rules/usf.py"
    rule.write_text(
        rule.read_text(encoding="utf-8").replace("sigma * weight", "2 * sigma * weight"),
        encoding="utf-8",
    )
    again = started(source, arguments, stderr=subprocess.STDOUT)
    said = again.communicate(timeout=600)[0]
    assert again.returncode == 0 and "belongs to other settings or inputs" in said, said
    assert "epoch 1:" in said


def test_model_and_data_must_fit(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    done = stage("evaluate", "--model", pretrained, "--data", digits, "--record", tmp_path / "r.json")
    assert done.returncode == 2
    assert (
        "takes images (1, 8, 8) of 5 classes, the data has (1, 8, 8) of 10; check --data, --classes and --input"
        in done.stderr
    )
