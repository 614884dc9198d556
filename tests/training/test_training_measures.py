"""What is measured while a network trains: accuracy, and the alignment of updates and feedback weights."""

import pytest
import torch

from creditflow import apply_rule
from creditflow.compute.randomness import Streams
from creditflow.data.inputs import to_unit_interval
from creditflow.feedback.layers import FeedbackLayer
from creditflow.training.accuracy import correct_predictions
from creditflow.training.alignment import alignment
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import Classification, TrainingData
from helpers import small_model, subset


def test_accuracy_is_measured_in_eval_mode_and_mode_is_restored() -> None:
    model, data = small_model().train(), subset()
    before = model.backbone[1].running_mean.clone()
    correct = correct_predictions(model, data)
    assert model.training
    assert torch.equal(model.backbone[1].running_mean, before)
    with torch.no_grad():
        expected = model.eval()(to_unit_interval(data.images)).argmax(1) == data.labels
    assert torch.equal(correct, expected)


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
        _, history = train(model, "brsf", TrainingData(data, data), settings, Streams("test", 0))
        histories.append(history)
        states.append(model.state_dict())
    assert all({"update_angle", "feedback_cosine"} <= row.keys() for row in histories[1])
    assert [{key: row[key] for key in histories[0][0]} for row in histories[1]] == histories[0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
