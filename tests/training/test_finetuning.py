"""What fine-tuning has beside pretraining: no epoch at all, the scale of V, and a head that is kept."""

import json
from pathlib import Path

import pytest
import torch

from creditflow import load_feedback, load_model
from creditflow.compute.randomness import Streams
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.feedback.apply import apply_rule, feedback_layers, feedback_state
from creditflow.models.storage import read_sidecar
from creditflow.training.loop import train
from creditflow.training.settings import FinetuningSettings, TrainingSettings
from creditflow.training.task import TrainingData
from creditflow.workflow.loading import load_experiment
from helpers import ROOT, TINY_TRAINING, small_model, stage, subset

SETTINGS = {"epochs": 0, "batch_size": 16, "learning_rate": 3e-3, "weight_decay": 5e-4}


@pytest.mark.parametrize("rule", ["bp", "usf", "brsf", "dfa"])
def test_no_epoch_leaves_the_network_and_gives_the_feedback_weights_of_the_start(rule: str) -> None:
    model, data, streams = small_model(), subset(), Streams("test", 3)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    settings = parse(FinetuningSettings, SETTINGS | {"scale": "norm"}, "here")
    state, history = train(model, rule, TrainingData(data, data), settings, streams)
    assert history == [] and all(map(torch.equal, model.state_dict().values(), before))
    expected = apply_rule(model, rule, generator=Streams("test", 3).generator("feedback"), scale="norm")
    assert state.keys() == feedback_state(expected).keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in feedback_state(expected).items())


def test_training_begins_with_the_scale_of_its_settings() -> None:
    sizes = {}
    for scale in ("sigma", "norm"):
        model, data = small_model(), subset()
        start = [float(layer.weight.detach().norm()) for _, layer in feedback_layers(apply_rule(model, "usf"))]
        settings = parse(FinetuningSettings, SETTINGS | {"epochs": 1, "scale": scale}, "here")
        state, _ = train(model, "brsf", TrainingData(data, data), settings, Streams("test", 3))
        view = apply_rule(model, "brsf", state=state)
        sizes[scale] = [float(layer.feedback_weight().norm()) for _, layer in feedback_layers(view)]
    assert sizes["norm"] == pytest.approx(start, rel=1e-5)
    assert sizes["sigma"] != pytest.approx(start, rel=0.01)


def test_pretraining_knows_neither_scale_nor_head_nor_zero_epochs() -> None:
    for wrong in ({"scale": "norm"}, {"head": "kept"}, {}):
        with pytest.raises(UserError, match=r"unknown key|epochs must be at least 1, not 0"):
            parse(TrainingSettings, SETTINGS | {"epochs": 1 if wrong else 0} | wrong, "here")
    with pytest.raises(UserError, match="scale must be 'sigma' or 'norm', not 'norms'; did you mean 'norm'"):
        parse(FinetuningSettings, SETTINGS | {"scale": "norms"}, "here")


def test_a_kept_head_and_no_epoch_are_the_pretrained_network(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    settings = json.dumps(json.loads(TINY_TRAINING) | {"epochs": 0, "head": "kept"})
    model = tmp_path / "model.safetensors"
    options = ["--data", digits, "--pretrained", pretrained, "--rule", "frsf", "--settings", settings]
    done = stage("finetune", *options, "--classes", "0", "1", "2", "3", "4", "--output", model)
    assert done.returncode == 0, done.stderr
    ours, start = (load_model(path).state_dict() for path in (model, pretrained))
    assert ours.keys() == start.keys() and all(torch.equal(ours[name], start[name]) for name in ours)
    assert load_feedback(model)[0] == "frsf" and read_sidecar(model)["history"] == []
    done = stage("finetune", *options, "--classes", "5", "6", "7", "8", "9", "--output", tmp_path / "other.safetensors")
    assert done.returncode == 2 and "was trained on other images or classes than those of --data" in done.stderr


@pytest.mark.parametrize(
    ("pretrain", "refused"),
    [
        ("{dataset: a, settings: {epochs: 1, batch_size: 9, learning_rate: 0.1}}", False),
        ("{dataset: other, settings: {epochs: 1, batch_size: 9, learning_rate: 0.1}}", True),
        ("{start: random}", True),
    ],
)
def test_experiments_keep_only_a_head_of_the_same_images(pretrain: str, refused: bool, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"""
description: a kept head
datasets:
  a: {{source: digits, classes: [0, 1]}}
  b: {{source: digits, classes: [0, 1]}}
  other: {{source: digits, classes: [2, 3]}}
backbones: [mlp]
rules: [bp]
seeds: [0]
threads: 1
pretrain: {pretrain}
finetune: {{datasets: [b], settings: {{epochs: 0, batch_size: 9, learning_rate: 0.1, head: kept}}}}
gradients: [exact]
attacks: {{}}
tables: {{}}
figures: {{}}
""",
        encoding="utf-8",
    )
    if not refused:
        assert load_experiment(tmp_path, "mine").training("b")["head"] == "kept"
        return
    with pytest.raises(UserError, match=r"finetune: settings for b: head: kept is for a head that was pretrained on"):
        load_experiment(tmp_path, "mine")


@pytest.mark.parametrize("name", ["finetune_length", "decade", "sign_symmetry_fashion_alexnet_vgg16"])
def test_experiments_that_use_this_are_sound(name: str) -> None:
    experiment = load_experiment(ROOT / "config/experiments", name)
    if name == "finetune_length":
        assert [experiment.training(dataset)["epochs"] for dataset in experiment.datasets] == [0, 1, 3, 10, 30]
    if name == "decade":
        quick = load_experiment(ROOT / "config/experiments", "quick")
        assert experiment.keys["finetune"] == quick.keys["finetune"]
        assert experiment.keys["pretrain"] == quick.keys["pretrain"] and len(experiment.keys["seeds"]) == 10
