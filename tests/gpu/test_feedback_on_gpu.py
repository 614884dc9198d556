"""Every feedback rule on a GPU: the gradients are those of the CPU, and so are the random numbers."""

import copy

import pytest
import torch
from torch import Tensor, nn

from creditflow import apply_rule, feedback_state
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.feedback.draws import fill_uniform
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from on_gpu import assert_near, assert_same_bits, mixed, small_model, subset

every_rule = pytest.mark.parametrize("rule", plugins.names("rule"))
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def after_steps(rule: str, device: torch.device, dtype: torch.dtype) -> list[dict[str, Tensor]]:
    """Returns output and gradients in each of three training steps, and then parameters and feedback state."""
    view = apply_rule(mixed(dtype).to(device), rule, generator=torch.Generator().manual_seed(1)).train()
    optimizer = torch.optim.SGD(view.parameters(), lr=0.1)
    x = torch.rand(16, 4, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(device, dtype)
    labels = (torch.arange(16) % 4).to(device)
    seen = []
    for _ in range(3):
        images = x.clone().requires_grad_()
        optimizer.zero_grad()
        output = view(images)
        nn.functional.cross_entropy(output, labels).backward()
        assert images.grad is not None
        gradients = {name: value.grad.clone() for name, value in view.named_parameters() if value.grad is not None}
        seen.append({"output": output.detach(), "images": images.grad, **gradients})
        optimizer.step()
    return [*seen, copy.deepcopy(view.state_dict()), feedback_state(view)]


@every_rule
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_steps_are_those_of_the_cpu(rule: str, dtype: torch.dtype, device: torch.device) -> None:
    for ours, expected in zip(
        after_steps(rule, device, dtype), after_steps(rule, torch.device("cpu"), dtype), strict=True
    ):
        assert_near(ours, expected, TOLERANCE[dtype])


@every_rule
def test_the_feedback_of_a_seed_does_not_depend_on_the_device(rule: str, device: torch.device) -> None:
    """The loop draws it; the learning rate is so low that W, and with it V, hardly moves."""
    settings = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-12)
    states = []
    for place in (device, torch.device("cpu")):
        data = subset().to(place)
        states.append(train(small_model().to(place), rule, TrainingData(data, data), settings, Streams("test", 3))[0])
    assert_near(*states, 1e-5)


@every_rule
def test_an_epoch_is_that_of_the_cpu(rule: str, device: torch.device) -> None:
    settings = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-3, flip=True, pad=1)
    ends = []
    for place in (device, torch.device("cpu")):
        data, model = subset().to(place), small_model().to(place)
        _, history = train(model, rule, TrainingData(data, data), settings, Streams("test", 3))
        ends.append((model.state_dict(), history[0]["loss"]))
    # Adam divides by the size of a gradient, so that rounding of one near zero moves its weight by a whole step.
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-3)
    assert_near(ends[0][0], ends[1][0], 2e-2)


@pytest.mark.parametrize("n", [7, 2**16 + 1, 2**23 + 3])
def test_numbers_of_a_stream_have_the_same_bits(n: int, device: torch.device) -> None:
    ours, expected = torch.empty(n, device=device), torch.empty(n)
    for tensor in (ours, expected):
        fill_uniform(tensor, 0.3, 5, 9)
    assert_same_bits({"numbers": ours}, {"numbers": expected})


@every_rule
@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}], ids=["bf16", "channels last"])
def test_other_ways_to_compute_train_too(rule: str, changes: dict[str, object], device: torch.device) -> None:
    settings = TrainingSettings(epochs=3, batch_size=16, learning_rate=3e-3, **changes)
    data = subset().to(device)
    _, history = train(small_model().to(device), rule, TrainingData(data, data), settings, Streams("test", 3))
    assert history[-1]["loss"] < history[0]["loss"]
