"""Training: hyper-parameters against torch's own optimiser, resuming bit for bit, mistakes."""

import copy
import math
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from creditflow.compute import randomness
from creditflow.compute.checkpoints import Resume, load_checkpoint
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.data.inputs import to_unit_interval
from creditflow.data.labels import cross_entropy
from creditflow.models.build import ImageClassifier
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

SETTINGS = TrainingSettings(epochs=4, batch_size=16, learning_rate=0.003, head_learning_rate=0.03, weight_decay=5e-4)


class InterruptedRunError(Exception):
    pass


def test_the_loop_is_adam_on_shuffled_batches() -> None:
    data, model = subset(), small_model()
    twin = copy.deepcopy(model)
    train(model, "bp", TrainingData(data, data), SETTINGS, Streams("test", 5))

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
    for trained, expected in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(trained, expected)


@cache
def undisturbed(rule: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], list[dict[str, float]]]:
    """Returns the weights, the feedback state and the history of a run that nobody interrupts."""
    model, data = small_model(), subset()
    state, history = train(model, rule, TrainingData(data, data), SETTINGS, Streams("test", 1))
    return model.state_dict(), state, history


@pytest.mark.parametrize("rule", plugins.names("rule"))
@pytest.mark.parametrize("stop_after", [1, 3])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(
    rule: str, stop_after: int, tmp_path: Path
) -> None:
    data = subset()
    weights, state, history = undisturbed(rule)

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == stop_after:
            raise InterruptedRunError

    resume = Resume(tmp_path / "run.checkpoint", "job")
    with pytest.raises(InterruptedRunError):
        train(small_model(), rule, TrainingData(data, data), SETTINGS, Streams("test", 1), resume=resume, on_epoch=stop)
    epochs: list[float] = []
    resumed = small_model(seed=99)  # its weights come from the checkpoint
    found = train(
        resumed,
        rule,
        TrainingData(data, data),
        SETTINGS,
        Streams("test", 1),
        resume=resume,
        on_epoch=lambda row: epochs.append(row["epoch"]),
    )
    assert epochs == list(range(stop_after + 1, 5))
    assert found[1] == history
    for name, tensor in weights.items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert found[0].keys() == state.keys()
    assert all(torch.equal(found[0][name], state[name]) for name in state)


def test_a_loss_that_is_no_number_ends_training() -> None:
    data, model = subset(), small_model()
    with torch.no_grad():
        model.head.bias[0] = float("nan")
    with pytest.raises(UserError, match=r"no longer finite in epoch 1, batch \d+ of \d+, at learning rate"):
        train(model, "bp", TrainingData(data, data), SETTINGS, Streams("test", 0))


def test_weights_that_decay_end_at_zero_and_not_among_denormal_numbers() -> None:
    model = small_model()
    for value in model.parameters():
        value.data[0] = 1e-40  # what is left of a unit that is dead
    train(
        model,
        "bp",
        TrainingData(subset(40), subset(10)),
        TrainingSettings(epochs=1, batch_size=8, learning_rate=1e-3),
        Streams("test", 0),
    )
    assert not any(bool(((value != 0) & (value.abs() < 1.17e-38)).any()) for value in model.parameters())
    assert float(torch.tensor(1e-40) * 1) > 0  # attacks count gradients that are exactly zero


@cache
def accuracy_and_loss(rule: str, one_block: bool, **change: object) -> tuple[float, float]:
    """Returns test accuracy and loss after training with changed settings."""
    data, test, model = subset(240), subset(400, seed=1), small_model()
    if one_block:  # the compiler takes seconds for each, and as long to try out the processor
        config = import_module("torch._inductor.config")
        config.compile_threads, config.cpp.vec_isa_ok = 1, True
        model.backbone = torch.nn.Sequential(
            *list(model.backbone)[:3], torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten()
        )
    settings = TrainingSettings(**{"epochs": 4, "batch_size": 16, "learning_rate": 2e-3} | change)
    _, history = train(model, rule, TrainingData(data, test), settings, Streams("test", 0))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    return history[-1]["test_accuracy"], history[-1]["loss"]


@pytest.mark.parametrize(
    "change",
    [{"precision": "bfloat16"}, {"channels_last": True}, pytest.param({"compile": True}, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_keys_for_speed_leave_accuracy_within_noise(rule: str, change: dict[str, object]) -> None:
    one_block = "compile" in change
    (plain, loss), (fast, fast_loss) = accuracy_and_loss(rule, one_block), accuracy_and_loss(rule, one_block, **change)
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
    train(undisturbed, "frsf", TrainingData(data, data), settings, Streams("test", 1))

    def kill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise InterruptedRunError

    resume = Resume(tmp_path / "checkpoint", "same")
    with pytest.raises(InterruptedRunError):
        train(fresh(), "frsf", TrainingData(data, data), settings, Streams("test", 1), resume=resume, on_epoch=kill)
    resumed = fresh()
    torch.rand(17)  # what else draws from the global generator does not matter
    train(resumed, "frsf", TrainingData(data, data), settings, Streams("test", 1), resume=resume)
    for expected, value in zip(undisturbed.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(value, expected)


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
        train(model, "bp", TrainingData(data, data), settings, Streams("test", 0), resume=resume)
    saved = load_checkpoint(resume.path, "same", print)
    assert saved is not None
    assert [row["epoch"] for row in saved["history"]] == [1]
    assert all(bool(tensor.isfinite().all()) for tensor in saved["model"].values())
