"""The stage that measures why an attack fails: against closed forms, autograd, and PGD."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from creditflow.attacks.attack import Problem
from creditflow.attacks.methods._ascent import ascend
from creditflow.attacks.why import compare_gradients, measure, why_metrics
from creditflow.attacks.why_settings import WhySettings
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.labels import cross_entropies
from creditflow.records.record import read_record
from helpers import small_model, stage, subset
from lies import Reverse

SETTINGS = WhySettings(epsilon=0.1, images=20, batch_size=7, steps=(1, 3, 6), step_divisor=4, divisors=(1, 2))


class Backwards(nn.Module):
    """A view of a model whose gradient points the wrong way."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.model(Reverse.apply(images))
        return outputs


def test_angles_of_known_gradients() -> None:
    exact = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, -1.0], [0.0, 0.0]]).view(4, 1, 1, 2)
    other = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-2.0, 1.0], [1.0, 1.0]]).view(4, 1, 1, 2)
    cosine, agreement = compare_gradients(exact, other)
    assert cosine.tolist() == pytest.approx([0.0, 1 / math.sqrt(2), -1.0, 0.0])
    assert agreement.tolist() == pytest.approx([0.0, 0.5, 0.0, 0.0])


def test_the_exact_gradient_agrees_with_itself_and_its_steps_are_those_of_sign_ascent() -> None:
    model, data, chosen = small_model().eval(), subset(40), torch.arange(20)
    measured = measure(model, model, data, chosen, SETTINGS)
    assert measured.cosine.tolist() == pytest.approx([1.0] * 20)
    assert measured.sign_agreement.tolist() == [1.0] * 20
    images, labels = data.batch(chosen)
    for row, steps in enumerate((0, *SETTINGS.steps)):
        moved = ascend(Problem(model, images, labels), 0.1, steps=steps, step=0.1 / 4, random_start=False, lowest=0.0)
        with torch.no_grad():
            outputs = model(moved)
        assert torch.allclose(measured.loss[row], cross_entropies(outputs, labels), atol=1e-5)
        assert torch.equal(measured.correct[row], outputs.argmax(1) == labels)


def test_a_gradient_that_points_the_wrong_way_has_cosine_minus_one_and_its_steps_lower_the_loss() -> None:
    model, data, chosen = small_model().eval(), subset(40), torch.arange(20)
    measured = measure(model, Backwards(model), data, chosen, SETTINGS)
    assert measured.cosine.tolist() == pytest.approx([-1.0] * 20)
    assert measured.sign_agreement.max() == 0
    assert measured.loss[-1].mean() < measured.loss[0].mean()
    metrics = {(metric.metric, metric.at): metric for metric in why_metrics(measured, SETTINGS)}
    assert metrics["accuracy_after_steps", 6].value == float(measured.correct[-1].double().mean())
    assert metrics["loss_after_steps", 0].value == pytest.approx(float(measured.loss[0].double().mean()))
    assert metrics["accuracy_by_step_divisor", 2].n == 20


@pytest.mark.parametrize("name", ["steps", "divisors"])
def test_numbers_that_do_not_rise_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} must rise"):
        parse(WhySettings, {"epsilon": 0.1, name: [2, 2]}, "why")


def test_the_stage_writes_what_was_measured(digits: Path, pretrained: Path, tmp_path: Path) -> None:
    record = tmp_path / "why.json"
    model = ["--model", pretrained, "--data", digits, "--classes", "0", "1", "2", "3", "4"]
    settings = {"epsilon": 0.1, "images": 10, "steps": [1, 2], "divisors": [1], "steps_of_divisors": 1}
    arguments = [*model, "--gradient", "through:frsf", "--record", record]
    done = stage("measure_gradients", *arguments, "--settings", json.dumps(settings))
    assert done.returncode == 0, done.stderr
    written = read_record(record)
    assert (written.keys.attack, written.keys.gradient) == ("why", "through:frsf")
    assert written.content["settings"]["parameters"] == WhySettings.model_validate(settings).model_dump(mode="json")
    assert {len(values) for name, values in written.outcomes.items() if name == "example"} == {10}
    done = stage("measure_gradients", *arguments, "--settings", json.dumps(settings | {"steps": [2, 1]}))
    assert done.returncode == 2
    assert "steps must rise" in done.stderr
