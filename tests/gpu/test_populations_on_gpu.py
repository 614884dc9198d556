"""Every update rule on a GPU: an epoch of a population is that of the CPU where both get the same random numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from creditflow.compute.checkpoints import Resume
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.populations import images, training
from creditflow.populations.images import FlatImages
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from on_gpu import assert_near, assert_same_bits

every_rule = pytest.mark.parametrize("rule", plugins.names("update_rule"))

MEMBERS = [Member(0, 0.01), Member(1, 0.01), Member(1, 0.003)]
#: Settings that have no default in some rules.
NEEDED = {"step_size": 0.1, "sigma": 0.1, "width": 9}


class DrawnOnCpu(images.Streams):
    """The random numbers of the CPU, on any device: a GPU's own generators give other ones."""

    def __init__(self, seeds: list[int], device: torch.device) -> None:
        super().__init__(seeds, torch.device("cpu"))
        self.target = device

    def _spread(self, rows: Tensor) -> Tensor:
        return super()._spread(rows).to(self.target)


def data(n: int, device: torch.device, seed: int = 0) -> FlatImages:
    """Images (n, 12) whose brightest third tells which of three classes they are of."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    pixels = torch.randint(0, 120, (n, 12), generator=generator)
    for index, label in enumerate(labels.tolist()):
        pixels[index, label * 4 : (label + 1) * 4] += 100
    return FlatImages(pixels.to(torch.uint8).to(device), labels.to(device), 3)


def trained(rule: str, device: torch.device, /, resume: Resume | None = None, **changes: Any) -> Population:
    values: dict[str, Any] = {"epochs": 1, "batch_size": 16, "hidden": [8, 7], "activation": "tanh"}
    values |= {"validation_images": 9, "loss": "cross_entropy"} | changes
    known = plugins.settings_class("update_rule", rule).model_fields
    values["rule"] = {name: value for name, value in NEEDED.items() if name in known and known[name].is_required()}
    stop = values.pop("stop", None)
    settings = parse(PopulationSettings, values, "settings")

    def after(population: Population) -> None:
        if population.epoch == stop:
            raise KeyboardInterrupt

    arguments = MEMBERS, data(60, device), data(30, device, seed=1), settings
    return training.train_population(get_update_rule(rule), *arguments, resume=resume, on_epoch=after)


def tensors(population: Population) -> dict[str, Tensor]:
    return population.parameters | population.feedback


@every_rule
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_an_epoch_is_that_of_the_cpu(
    rule: str, precision: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "Streams", DrawnOnCpu)
    places = device, torch.device("cpu")
    ours, expected = (trained(rule, place, precision=precision, angle_images=16) for place in places)
    assert_near(tensors(ours), tensors(expected), 1e-3 if precision == "float32" else 1e-8)
    for mine, other in zip(ours.history, expected.history, strict=True):
        assert mine[0] == pytest.approx(other[0], rel=1e-2, abs=0.05, nan_ok=True)


@every_rule
def test_adam_takes_the_steps_of_the_cpu(rule: str, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "Streams", DrawnOnCpu)
    adam = {"optimizer": {"kind": "adam"}, "precision": "float64"}
    ours, expected = (trained(rule, place, **adam) for place in (device, torch.device("cpu")))
    assert_near(tensors(ours), tensors(expected), 1e-6)


@every_rule
def test_two_runs_have_the_same_bits(rule: str, device: torch.device) -> None:
    first, second = (trained(rule, device, epochs=2) for _ in range(2))
    assert_same_bits(tensors(first), tensors(second))
    assert first.history == second.history


@every_rule
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(
    rule: str, device: torch.device, tmp_path: Path
) -> None:
    changes = {"epochs": 3, "dropout": 0.2 if get_update_rule(rule).dropout else 0.0, "optimizer": {"momentum": 0.9}}
    resume = Resume(tmp_path / "run.checkpoint", "job")
    with pytest.raises(KeyboardInterrupt):
        trained(rule, device, resume, **changes, stop=1)
    resumed = trained(rule, device, resume, **changes)
    whole = trained(rule, device, **changes)
    assert_same_bits(tensors(resumed), tensors(whole))
    assert resumed.history == whole.history
