"""What stays as it is in training: statistics of batch normalisation, and all below the head of a control."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from creditflow.compute.randomness import Streams
from creditflow.core.errors import UserError
from creditflow.core.matched import HEAD_ONLY
from creditflow.models.build import ImageClassifier
from creditflow.training.loop import Stop, train
from creditflow.training.modes import set_training_mode
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

SETTINGS: dict[str, Any] = {"epochs": 2, "batch_size": 20, "learning_rate": 0.01, "head_learning_rate": 0.02}


def trained(rule: str, stop: Stop | None = None, **change: Any) -> tuple[ImageClassifier, list[dict[str, float]]]:
    model = small_model()
    data = TrainingData(subset(), subset(seed=1))
    settings = TrainingSettings(**(SETTINGS | change))
    _, history = train(model, rule, data, settings, Streams("finetune", 0), stop=stop)
    return model, history


@pytest.mark.parametrize("stop", [None, Stop(0.0, looks=1)])
@pytest.mark.parametrize("rule", ["bp", "frsf"])
def test_frozen_batch_normalisation_keeps_its_statistics_and_trains_the_rest(rule: str, stop: Stop | None) -> None:
    before, (after, _) = small_model().state_dict(), trained(rule, stop, batch_norm="frozen")
    changed = {name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before[name])}
    statistics = {name for name in before if "running_" in name or "num_batches" in name or "normalize" in name}
    assert changed == before.keys() - statistics
    usual, _ = trained(rule, stop)
    assert not torch.equal(usual.backbone[1].running_mean, before["backbone.1.running_mean"])


def test_to_freeze_what_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^batch_norm: frozen has no effect, .*; leave it out$"):
        set_training_mode(nn.Linear(2, 2), "bp", TrainingSettings(**(SETTINGS | {"batch_norm": "frozen"})))


def test_frozen_batch_normalisation_trains_by_the_exact_gradient_of_the_network_in_evaluation_mode() -> None:
    model, data = small_model(), subset(20)
    images, labels = data.batch(torch.arange(20))
    F.cross_entropy(model.eval()(images), labels).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    after, _ = trained_on(data, batch_norm="frozen", epochs=1)
    for name, parameter in after.named_parameters():
        # Adam's first step is the rate times the sign of the gradient, where the gradient is not tiny.
        gradient, step = gradients[name], parameter.detach() - small_model().state_dict()[name]
        assert gradient is not None
        rate = 0.02 if name.startswith("head") else 0.01
        clear = gradient.abs() > 1e-5
        torch.testing.assert_close(step[clear], -rate * gradient.sign()[clear], rtol=1e-2, atol=1e-5)


def trained_on(data: Any, **change: Any) -> tuple[ImageClassifier, list[dict[str, float]]]:
    model = small_model()
    settings = TrainingSettings(**(SETTINGS | change))
    _, history = train(model, "bp", TrainingData(data, data), settings, Streams("finetune", 0))
    return model, history


def test_a_control_of_which_only_the_head_is_trained_is_a_linear_classifier_of_the_features() -> None:
    before, (model, history) = small_model().eval(), trained(HEAD_ONLY, angle_images=10)
    assert all("update_angle" not in row for row in history)  # nothing below the head has an update
    body = {name: tensor for name, tensor in before.state_dict().items() if not name.startswith("head")}
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in body.items())
    # By hand: Adam on the head alone, on the features of the images in evaluation mode, in the same order.
    data, order = subset(), Streams("finetune", 0).generator("order")
    head = nn.Linear(64, 3)
    head.load_state_dict(before.head.state_dict())
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(2):
        for part in torch.randperm(60, generator=order).split(20):
            images, labels = data.batch(part)
            with torch.no_grad():
                features = before.backbone(before.normalize(images))
            optimizer.zero_grad()
            F.cross_entropy(head(features), labels).backward()
            optimizer.step()
    torch.testing.assert_close(model.head.weight, head.weight)
    torch.testing.assert_close(model.head.bias, head.bias)
