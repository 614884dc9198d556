"""Training: hyper-parameters against torch's own optimiser, resuming bit for bit, mistakes."""

import copy
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from creditflow import apply_rule
from creditflow.compute import randomness
from creditflow.compute.checkpoints import Resume, load_checkpoint, save_checkpoint
from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.labels import cross_entropy
from creditflow.feedback.layers import FeedbackLayer
from creditflow.models.build import ImageClassifier, replace_head
from creditflow.models.storage import load_model
from creditflow.training.accuracy import correct_predictions
from creditflow.training.alignment import alignment
from creditflow.training.loop import TrainingSettings, train
from creditflow.training.task import Classification
from helpers import ROOT, TINY_TRAINING, small_model, stage, subset

SETTINGS = TrainingSettings(epochs=4, batch_size=16, learning_rate=0.003, head_learning_rate=0.03, weight_decay=5e-4)


class InterruptedRunError(Exception):
    pass


def test_the_loop_is_adam_on_shuffled_batches() -> None:
    data, model = subset(), small_model()
    twin = copy.deepcopy(model)
    train(model, "bp", data, data, SETTINGS, seed=5, stream="test")

    rest = [p for name, p in twin.named_parameters() if not name.startswith("head")]
    groups = [{"params": rest, "lr": 0.003}, {"params": list(twin.head.parameters()), "lr": 0.03}]
    adam = torch.optim.Adam(groups, betas=(0.9, 0.999), weight_decay=5e-4, fused=True)
    order = randomness.generator("test", "order", 5)
    twin.train()
    for _ in range(4):
        for batch in torch.randperm(60, generator=order).split(16):
            adam.zero_grad()
            F.cross_entropy(twin(to_unit_interval(data.images[batch])), data.labels[batch]).backward()
            adam.step()
    for mine, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("rule", plugins.names("rule"))
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(
    rule: str, stop_after: int, tmp_path: Path
) -> None:
    data = subset()
    whole = small_model()
    expected = train(whole, rule, data, data, SETTINGS, seed=1, stream="test")

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == stop_after:
            raise InterruptedRunError

    resume = Resume(tmp_path / "run.checkpoint", "job")
    with pytest.raises(InterruptedRunError):
        train(small_model(), rule, data, data, SETTINGS, seed=1, stream="test", resume=resume, on_epoch=stop)
    epochs: list[float] = []
    resumed = small_model(seed=99)  # its weights come from the checkpoint
    found = train(
        resumed,
        rule,
        data,
        data,
        SETTINGS,
        seed=1,
        stream="test",
        resume=resume,
        on_epoch=lambda row: epochs.append(row["epoch"]),
    )
    assert epochs == list(range(stop_after + 1, 5))
    assert found[1] == expected[1]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert found[0].keys() == expected[0].keys()
    assert all(torch.equal(found[0][name], expected[0][name]) for name in expected[0])


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-10], lambda content: content[:100] + b"x" + content[101:], lambda content: b""]
)
def test_a_damaged_or_foreign_checkpoint_is_not_used(
    damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "checkpoint"
    save_checkpoint(path, "job", {"epoch": torch.ones(3)})
    assert torch.equal(load_checkpoint(path, "job", files.warn)["epoch"], torch.ones(3))  # type: ignore[index]
    assert load_checkpoint(path, "another job", files.warn) is None
    assert "other settings" in capsys.readouterr().err
    path.write_bytes(damage(path.read_bytes()))
    assert load_checkpoint(path, "job", files.warn) is None
    assert "damaged checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"learning_rate": float("nan")},
        {"beta2": 1.0},
        {"weight_decay": -1.0},
    ],
)
def test_impossible_hyper_parameters_are_refused(wrong: dict[str, float]) -> None:
    good = {"epochs": 1, "batch_size": 1, "learning_rate": 0.1}
    parse(TrainingSettings, good, "here")
    with pytest.raises(UserError, match="here: "):
        parse(TrainingSettings, good | wrong, "here")


def test_a_loss_that_is_no_number_ends_training() -> None:
    data, model = subset(), small_model()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(UserError, match=r"no longer finite in epoch 1, batch \d+ of \d+, at learning rate"):
        train(model, "bp", data, data, SETTINGS, seed=0, stream="test")


def test_weights_that_decay_end_at_zero_and_not_among_denormal_numbers() -> None:
    model = small_model()
    for value in model.parameters():
        value.data[0] = 1e-40  # what is left of a unit that is dead
    train(
        model,
        "bp",
        subset(40),
        subset(10),
        TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3),
        seed=0,
        stream="test",
    )
    assert not any(bool(((value != 0) & (value.abs() < 1.17e-38)).any()) for value in model.parameters())
    assert float(torch.tensor(1e-40) * 1) > 0  # attacks count gradients that are exactly zero


def test_a_fresh_head_keeps_the_backbone() -> None:
    model = small_model(3)
    fresh = replace_head(model, 7, "finetune", 0)
    assert fresh.head.out_features == 7
    for mine, theirs in zip(fresh.backbone.parameters(), model.backbone.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(fresh.head.weight, replace_head(model, 7, "finetune", 0).head.weight)
    assert not torch.equal(fresh.head.weight, replace_head(model, 7, "finetune", 1).head.weight)


def test_accuracy_is_measured_in_eval_mode_and_mode_is_restored() -> None:
    model, data = small_model().train(), subset()
    before = model.backbone[1].running_mean.clone()
    correct = correct_predictions(model, data)
    assert model.training
    assert torch.equal(model.backbone[1].running_mean, before)
    with torch.no_grad():
        expected = model.eval()(to_unit_interval(data.images)).argmax(1) == data.labels
    assert torch.equal(correct, expected)


def finetune(digits: Path, pretrained: Path, rule: str, output: Path, *more: str | Path) -> list[str]:
    arguments = ["--data", digits, "--classes", "5", "6", "7", "8", "9", "--pretrained", pretrained, "--rule", rule]
    return [*map(str, arguments), "--output", str(output), *map(str, more)]


@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_kill_9_in_the_middle_then_the_same_command(digits: Path, pretrained: Path, rule: str, tmp_path: Path) -> None:
    longer = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 12})
    undisturbed, killed = tmp_path / "undisturbed.safetensors", tmp_path / "killed.safetensors"
    options = ["--settings", longer, "--seed", "2"]
    done = stage("finetune", *finetune(digits, pretrained, rule, undisturbed, *options))
    assert done.returncode == 0, done.stderr

    checkpoint = tmp_path / "resume" / "checkpoint"
    arguments = finetune(digits, pretrained, rule, killed, *options, "--checkpoint", checkpoint)
    process = subprocess.Popen([sys.executable, ROOT / "src/finetune.py", *arguments], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.exists()
    done = stage("finetune", *arguments)
    assert done.returncode == 0, done.stderr
    assert "epoch 1:" not in done.stdout  # it went on, it did not start again
    for suffix in (".safetensors", ".feedback.safetensors"):
        assert killed.with_suffix(suffix).read_bytes() == undisturbed.with_suffix(suffix).read_bytes()
    assert not checkpoint.exists()
    sidecars = [json.loads(path.with_suffix(".json").read_text()) for path in (undisturbed, killed)]
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
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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
    longer = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 30})
    arguments = finetune(
        digits, pretrained, "usf", tmp_path / "model.safetensors", "--settings", longer, "--checkpoint", checkpoint
    )
    process = subprocess.Popen([sys.executable, source / "finetune.py", *arguments], stdout=subprocess.DEVNULL)
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    rule = source / "creditflow/feedback/rules/usf.py"
    rule.write_text(rule.read_text().replace("xavier_sigma(weight) *", "2 * xavier_sigma(weight) *"))
    done = subprocess.run(
        [sys.executable, source / "finetune.py", *arguments], capture_output=True, text=True, check=True
    )
    assert "belongs to other settings or inputs" in done.stderr
    assert "epoch 1:" in done.stdout


def test_model_and_data_must_fit(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    done = stage("evaluate", "--model", pretrained, "--data", digits, "--record", tmp_path / "r.json")
    assert done.returncode == 2
    assert (
        "takes images (1, 8, 8) of 5 classes, the data has (1, 8, 8) of 10; check --data, --classes and --input"
        in done.stderr
    )


@pytest.mark.parametrize(
    "change",
    [{"precision": "bfloat16"}, {"channels_last": True}, pytest.param({"compile": True}, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_keys_for_speed_leave_accuracy_within_noise(rule: str, change: dict[str, object]) -> None:
    data, test = subset(240), subset(400, seed=1)
    base = {"epochs": 4, "batch_size": 16, "learning_rate": 2e-3}
    found = []
    for settings in (base, base | change):
        model = small_model()
        _, history = train(model, rule, data, test, TrainingSettings(**settings), seed=0, stream="test")
        found.append((history[-1]["test_accuracy"], history[-1]["loss"]))
        assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    (plain, loss), (fast, fast_loss) = found
    assert plain > 0.6
    # Three standard errors of the difference of two proportions.
    assert abs(plain - fast) <= 3 * math.sqrt(2 * plain * (1 - plain) / 400) + 1 / 400
    assert fast_loss == pytest.approx(loss, rel=0.15, abs=0.02)


def test_dropout_and_augmentation_resume_bit_for_bit(tmp_path: Path) -> None:
    data = subset(30)
    settings = TrainingSettings(epochs=4, batch_size=8, learning_rate=1e-3, flip=True, pad=2)

    def fresh() -> ImageClassifier:
        model = small_model()
        model.backbone.append(torch.nn.Dropout(0.5))
        return model

    undisturbed = fresh()
    train(undisturbed, "frsf", data, data, settings, seed=1, stream="test")

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise InterruptedRunError

    resume = Resume(tmp_path / "checkpoint", "same")
    with pytest.raises(InterruptedRunError):
        train(fresh(), "frsf", data, data, settings, seed=1, stream="test", resume=resume, on_epoch=kill)
    resumed = fresh()
    torch.rand(17)  # what else draws from the global generator does not matter
    train(resumed, "frsf", data, data, settings, seed=1, stream="test", resume=resume)
    for one, other in zip(undisturbed.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_loss_that_breaks_names_the_batch_and_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = subset(64)
    model, resume = small_model(), Resume(tmp_path / "checkpoint", "same")
    settings = TrainingSettings(epochs=3, batch_size=16, learning_rate=1e-3)

    real, calls = cross_entropy, []

    def breaks_in_the_seventh_step(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return real(logits, labels) * (float("nan") if len(calls) >= 7 else 1.0)

    monkeypatch.setattr("creditflow.training.task.cross_entropy", breaks_in_the_seventh_step)
    with pytest.raises(
        UserError, match=r"no longer finite in epoch 2, batch 3 of 4, at learning rate 0\.001; lower it"
    ):
        train(model, "bp", data, data, settings, seed=0, stream="test", resume=resume)
    saved = load_checkpoint(resume.path, "same", print)
    assert saved is not None
    assert [row["epoch"] for row in saved["history"]] == [1]
    assert all(bool(tensor.isfinite().all()) for tensor in saved["model"].values())


@pytest.mark.parametrize("rule", ["bp", "usf", "fa"])
def test_alignment_is_the_angle_between_the_two_gradients(rule: str) -> None:
    data = subset(20)
    model = small_model()
    view = apply_rule(model, rule, generator=torch.Generator().manual_seed(0))
    images, labels = data.batch(torch.arange(20))
    found = alignment(model.train(), view.train(), Classification(), images, labels)
    assert model.training
    assert view.training
    gradients = []
    for network in (model.eval(), view.eval()):
        model.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.backbone.parameters()]))
    expected = torch.rad2deg(torch.acos(torch.nn.functional.cosine_similarity(*gradients, dim=0).clamp(-1, 1)))
    assert found["update_angle"] == pytest.approx(float(expected), abs=0.1)
    weights = [layer for layer in view.modules() if isinstance(layer, FeedbackLayer)]
    if rule == "bp":
        assert found == {"update_angle": pytest.approx(0, abs=0.1), "feedback_cosine": 1.0}
    else:
        pairs = [
            torch.cat([tensor.detach().double().flatten() for tensor in side])
            for side in zip(*[(w.feedback_weight(), w.weight) for w in weights], strict=True)
        ]
        assert found["feedback_cosine"] == pytest.approx(
            float(torch.nn.functional.cosine_similarity(*pairs, dim=0)), abs=1e-5
        )


def test_angles_are_in_the_history_and_change_nothing_else() -> None:
    data = subset(40)
    histories, states = [], []
    for n in (0, 16):
        model = small_model()
        settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=1e-3, angle_images=n)
        _, history = train(model, "brsf", data, data, settings, seed=0, stream="test")
        histories.append(history)
        states.append(model.state_dict())
    assert all({"update_angle", "feedback_cosine"} <= row.keys() for row in histories[1])
    assert [{key: row[key] for key in histories[0][0]} for row in histories[1]] == histories[0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
