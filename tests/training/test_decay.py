"""What weight decay outweighs is said before training: closed forms, depthwise networks, and no influence at all."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from creditflow.compute.checkpoints import Resume
from creditflow.compute.randomness import Streams
from creditflow.feedback.apply import apply_rule
from creditflow.models.storage import read_sidecar
from creditflow.records.record import read_record
from creditflow.training import loop
from creditflow.training.decay import LayerDecay, below_decay, in_words
from creditflow.training.loop import train
from creditflow.training.settings import FinetuningSettings, TrainingSettings
from creditflow.training.task import TrainingData
from helpers import TINY_TRAINING, small_model, stage, subset


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_two_linear_layers_in_closed_form() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)).double()
    x, y = torch.randn(7, 5, generator=gen(), dtype=torch.float64), torch.arange(7) % 3
    w1, w2 = (layer.weight.detach() for layer in model)
    v2 = apply_rule(model, "fa", generator=gen())[1].feedback_weight()
    delta = ((x @ w1.T @ w2.T).float().softmax(1).double() - nn.functional.one_hot(y, 3)) / 7
    for rule, down in (("bp", w2), ("fa", v2)):
        rows = below_decay(model, rule, x, y, 0.3, generator=gen())
        expected = [(delta @ down).T @ x, delta.T @ x @ w1.T]
        assert [row.layer for row in rows] == ["0", "1"]
        assert [row.gradient for row in rows] == pytest.approx([float(g.norm()) for g in expected], rel=1e-6)
        assert [row.decay for row in rows] == pytest.approx([0.3 * float(w.norm()) for w in (w1, w2)], rel=1e-12)
        assert [row.is_below for row in rows] == [
            float(g.norm()) < 0.3 * float(w.norm()) for g, w in zip(expected, (w1, w2), strict=True)
        ]


def test_a_gradient_that_is_not_a_number_counts_as_below() -> None:
    model = nn.Sequential(nn.Linear(5, 3))
    rows = below_decay(model, "bp", torch.full((4, 5), math.nan), torch.arange(4) % 3, 0.1)
    assert [row.is_below for row in rows] == [True] and "at the first batch, in 1 of 1 layers" in str(in_words(rows))


class Depthwise(nn.Module):
    """Eight blocks of a depthwise convolution with large weights and a pointwise one, each with batch normalisation."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        blocks: list[nn.Module] = [
            nn.Conv2d(1, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        ]
        for _ in range(8):
            for layer in (
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
            ):
                nn.init.normal_(layer.weight, std=2.0)
                blocks += [layer, nn.BatchNorm2d(channels), nn.ReLU()]
        self.blocks, self.drop, self.head = nn.Sequential(*blocks), nn.Dropout(0.5), nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.blocks(x).mean((2, 3))))


def depthwise() -> tuple[Depthwise, Tensor, Tensor]:
    torch.manual_seed(0)
    return Depthwise(), torch.rand(16, 1, 8, 8, generator=gen()), torch.arange(16) % 3


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf", "fa"])
def test_in_a_depthwise_network_sigma_leaves_layers_to_weight_decay_and_norm_does_not(rule: str) -> None:
    model, x, y = depthwise()
    outweighed = {
        scale: [row.layer for row in below_decay(model, rule, x, y, 1e-4, generator=gen(), scale=scale) if row.is_below]
        for scale in ("sigma", "norm")
    }
    assert len(outweighed["sigma"]) > 8 and outweighed["norm"] == []
    assert not any(row.is_below for row in below_decay(model, "bp", x, y, 1e-4))


@pytest.mark.parametrize("rule", ["bp", "brsf", "dfa"])
def test_measuring_changes_nothing(rule: str) -> None:
    model, x, y = depthwise()
    model(x).sum().backward()
    before = copy.deepcopy((model.state_dict(), [parameter.grad for parameter in model.parameters()]))
    random, mode = torch.get_rng_state(), model.training
    rows = [below_decay(model, rule, x, y, 1e-3, generator=gen()) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), random) and model.training is mode
    assert all(torch.equal(ours, before[0][name]) for name, ours in model.state_dict().items())
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(map(torch.equal, gradients, before[1]))  # type: ignore[arg-type]
    assert len(rows[0]) == 18 and {row.layer for row in rows[0]} > {"blocks.0", "head"}


def test_frozen_weights_have_no_row_and_unused_ones_no_gradient() -> None:
    model, x, y = depthwise()
    model.blocks[0].weight.requires_grad_(False)
    model.spare = nn.Linear(2, 2)
    rows = {row.layer: row for row in below_decay(model, "bp", x, y, 1e-3)}
    assert "blocks.0" not in rows and rows["spare"].gradient == 0 and rows["spare"].is_below
    assert below_decay(model.requires_grad_(False), "usf", x, y, 1e-3) == []


def test_words_name_the_layer_that_is_worst() -> None:
    rows = [LayerDecay("a", 1.0, 0.5), LayerDecay("b", 1e-6, 0.5), LayerDecay("c", 0.1, 0.5), LayerDecay("d", 0.0, 0.0)]
    assert [row.is_below for row in rows] == [False, True, True, False] and rows[3].ratio == math.inf
    assert "in 2 of 4 layers" in str(in_words(rows)) and str(in_words(rows)).endswith("2.0e-06 of it, in b")
    assert in_words(rows[:1]) is None and in_words([]) is None


SETTINGS = {"epochs": 2, "batch_size": 32, "learning_rate": 3e-3, "weight_decay": 5e-4}


class InterruptedRunError(Exception):
    pass


@pytest.mark.parametrize("rule", ["bp", "brsf"])
def test_training_does_not_notice_and_a_resumed_run_tells_the_rows_of_its_start(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = FinetuningSettings(**SETTINGS, scale="norm")  # type: ignore[arg-type]
    data = TrainingData(subset(), subset())
    told: list[list[LayerDecay]] = []

    def run(resume: Resume | None = None, stop: int = 0) -> list[Tensor]:
        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == stop:
                raise InterruptedRunError

        model = small_model()
        train(
            model,
            rule,
            data,
            settings,
            Streams("test", 1),
            resume=resume,
            on_start=lambda rows: told.append(list(rows)),
            on_epoch=on_epoch,
        )
        return list(model.state_dict().values())

    undisturbed, resume = run(), Resume(tmp_path / "checkpoint", "this job")
    with pytest.raises(InterruptedRunError):
        run(resume, stop=1)
    assert all(map(torch.equal, run(resume), undisturbed))
    assert len(told[0]) >= 2 and told[0] == told[1] == told[2]
    monkeypatch.setattr(loop, "first_decay", lambda *given: [])
    assert all(map(torch.equal, run(), undisturbed)) and told[3] == []


def test_without_weight_decay_nothing_is_measured() -> None:
    told: list[int] = []
    settings = TrainingSettings(**SETTINGS | {"weight_decay": 0.0, "epochs": 1})  # type: ignore[arg-type]
    data = TrainingData(subset(), subset())
    train(small_model(), "fa", data, settings, Streams("t", 0), on_start=lambda rows: told.append(len(rows)))
    assert told == [0]


def test_the_stage_warns_before_training_and_the_record_says_so(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    model, record = tmp_path / "model.safetensors", tmp_path / "record.json"
    settings = json.loads(TINY_TRAINING) | {"epochs": 1, "weight_decay": 50.0, "scale": "norm"}
    place = ["--data", digits, "--classes", "5", "6", "7", "8", "9"]
    done = stage(
        "finetune",
        *place,
        "--pretrained",
        pretrained,
        "--rule",
        "usf",
        "--settings",
        json.dumps(settings),
        "--output",
        model,
    )
    assert done.returncode == 0, done.stderr
    assert "layers the gradient is smaller than the term of weight decay" in done.stderr
    rows = read_sidecar(model)["below_decay"]
    assert {"layer", "gradient", "decay", "is_below"} == set(rows[0]) and all(row["is_below"] for row in rows)
    assert stage("evaluate", "--model", model, *place, "--record", record).returncode == 0
    assert read_record(record).content["checks"]["below_decay"] == 1.0
