"""`bp_matched_<rule>`: backpropagation stops where its clean accuracy is that of the rule's network."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from creditflow.compute.randomness import Streams
from creditflow.core.errors import UserError
from creditflow.core.matched import matched_name, matched_to, trained_by
from creditflow.data.prepared import Subset
from creditflow.feedback.apply import get_rule
from creditflow.models.storage import read_sidecar
from creditflow.training.accuracy import correct_predictions
from creditflow.training.loop import Stop, _is_accurate_enough, train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import TINY_TRAINING, small_model, stage, subset

SETTINGS = TrainingSettings(epochs=4, batch_size=8, learning_rate=1e-3)
DATA = TrainingData(subset(96, n_classes=4, size=10), subset(60, n_classes=4, size=10, seed=1))


def trained(stop: Stop | None, *, fails: bool = False) -> tuple[torch.nn.Module, list[dict[str, float]]]:
    """Returns the model and its history, which is empty if the training fails, as it is expected to."""
    model = small_model(n_classes=4, size=10)
    with pytest.raises(UserError) if fails else nullcontext():
        _, history = train(model, "bp", DATA, SETTINGS, Streams("finetune", 0), stop=stop)
        return model, history
    return model, []


def test_a_name_is_taken_apart() -> None:
    assert matched_to(matched_name("fa")) == "fa"
    assert trained_by("bp_matched_fa") == "bp"
    assert matched_to("bp") is None
    assert trained_by("fa") == "fa"
    assert get_rule("bp_matched_fa") is get_rule("bp")


def test_training_stops_at_the_first_look_at_which_the_accuracy_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def looked(view: torch.nn.Module, test: Subset) -> torch.Tensor:
        correct = correct_predictions(view, test)
        seen.append(float(correct.float().mean()))
        return correct

    monkeypatch.setattr("creditflow.training.loop.correct_predictions", looked)
    _, history = trained(Stop(accuracy=2.0, looks=12), fails=True)  # looks after each of the 48 steps
    path = list(seen)
    assert len(path) == 48
    assert history == []
    for accuracy in sorted(set(path))[1:4]:
        seen.clear()
        model, history = trained(Stop(accuracy, looks=12))
        assert seen == path[: path.index(next(value for value in path if value >= accuracy)) + 1]
        reached = float(correct_predictions(model, DATA.test).float().mean())
        assert reached == seen[-1] == pytest.approx(history[-1]["test_accuracy"])


def test_looking_changes_nothing() -> None:
    plain, history = trained(None)
    looking, _ = trained(Stop(accuracy=2.0), fails=True)
    assert all(map(torch.equal, plain.state_dict().values(), looking.state_dict().values()))
    assert len(history) == SETTINGS.epochs


@pytest.mark.parametrize(("n_steps", "looks"), [(12, 50), (100, 50), (101, 50), (7, 3)])
def test_looks_are_spread_over_the_epoch(n_steps: int, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def accuracies(view: object, test: object) -> torch.Tensor:
        seen.append(1)
        return torch.zeros(1, dtype=torch.bool)

    monkeypatch.setattr("creditflow.training.loop.correct_predictions", accuracies)
    run = SimpleNamespace(view=None)
    at = []
    for step in range(1, n_steps + 1):
        before = len(seen)
        _is_accurate_enough(run, Stop(0.5, looks), None, step, n_steps)  # type: ignore[arg-type]
        if len(seen) > before:
            at.append(step)
    assert len(at) == min(looks, n_steps)
    assert at[-1] == n_steps
    assert max(second - first for first, second in zip([0, *at], at, strict=False)) <= -(-n_steps // looks)


def test_an_accuracy_that_is_never_reached_is_one_line() -> None:
    with pytest.raises(UserError, match=r"did not reach 200\.00% in 4 epochs.*`matched`"):
        train(small_model(4, 10), "bp", DATA, SETTINGS, Streams("finetune", 0), stop=Stop(2.0))


def test_the_stage_matches_a_record(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    common = ["--data", digits, "--classes", "5", "6", "7", "8", "9", "--seed", "3"]
    training = ["--pretrained", pretrained, "--settings", TINY_TRAINING]
    rule_model, record = tmp_path / "fa.safetensors", tmp_path / "fa.json.record.json"
    done = stage("finetune", *common, *training, "--rule", "fa", "--output", rule_model)
    assert done.returncode == 0, done.stderr
    done = stage("evaluate", *common, "--model", rule_model, "--record", record)
    assert done.returncode == 0, done.stderr
    target = next(
        row for row in json.loads(record.read_text(encoding="utf-8"))["metrics"] if row["metric"] == "accuracy"
    )

    matched = tmp_path / "matched.safetensors"
    arguments = [*common, *training, "--rule", "bp_matched_fa", "--output", matched]
    done = stage("finetune", *arguments, "--match", record)
    assert done.returncode == 0, done.stderr
    sidecar = read_sidecar(matched)
    assert sidecar["rule"] == "bp_matched_fa"
    assert sidecar["settings"]["accuracy"] == target["value"]
    assert sidecar["history"][-1]["test_accuracy"] >= target["value"]

    for options, message in (
        ([], "--match goes with --rule bp_matched_<rule>"),
        (["--match", record, "--seed", "4"], "where that of"),
    ):
        done = stage("finetune", *arguments, *options)
        assert done.returncode == 2
        assert message in done.stderr
