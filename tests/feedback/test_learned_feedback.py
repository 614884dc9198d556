"""Feedback weights that learn: Kolen and Pollack, and weight mirroring."""

import pytest
import torch
from torch import nn

from creditflow import apply_rule
from creditflow.core import plugins
from creditflow.feedback.apply import feedback_layers


def plain_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_kolen_and_pollacks_difference_shrinks_with_each_update_whatever_the_optimiser(
    optimizer: type[torch.optim.Optimizer],
) -> None:
    from creditflow.feedback.rules.kp import DECAY

    net = plain_network()
    view = apply_rule(net, "kp", generator=torch.Generator().manual_seed(1))
    start = {name: layer.feedback_weight() - layer.weight.detach() for name, layer in feedback_layers(view)}
    steps = optimizer(net.parameters(), lr=0.01, weight_decay=0.01)  # type: ignore[call-arg]
    for index in range(20):
        images = torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(index))
        steps.zero_grad()
        nn.functional.cross_entropy(view(images), torch.arange(4) % 3).backward()
        steps.step()
    for name, layer in feedback_layers(view):
        difference = layer.feedback_weight() - layer.weight.detach()
        torch.testing.assert_close(difference, (1 - DECAY) ** 20 * start[name], rtol=1e-4, atol=1e-6)


def test_mirrored_weights_approach_the_weights_and_follow_them() -> None:
    net = plain_network()
    view = apply_rule(net, "wm", generator=torch.Generator().manual_seed(1))

    def cosines() -> list[float]:
        pairs = [
            (layer.feedback_weight().flatten(), layer.weight.detach().flatten()) for _, layer in feedback_layers(view)
        ]
        return [float(torch.cosine_similarity(feedback, weight, 0)) for feedback, weight in pairs]

    assert max(map(abs, cosines())) < 0.5
    for index in range(300):
        with torch.no_grad():
            for parameter in net.parameters():  # a slow random walk
                parameter.add_(0.001 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
        view(torch.zeros(1, 2, 5, 5))
    assert min(cosines()) > 0.9


def distance_left(rule: str, dtype: torch.dtype) -> float:
    """Returns which part of the distance between V and W is left after 1,000 updates of a layer that stays as it is."""
    weight = (0.3 * torch.randn(20, 10, generator=torch.Generator().manual_seed(0))).to(dtype)
    rule_ = plugins.load("rule", rule).RULE
    state = rule_.initial_state(weight, torch.Generator().manual_seed(1))
    before = rule_.feedback_weight(weight, state) - weight
    for _ in range(1000):
        state = rule_.after_update(weight, state)
    return float((rule_.feedback_weight(weight, state) - weight).float().norm() / before.float().norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rule", ["kp", "wm"])
def test_what_learns_in_each_precision(rule: str, dtype: torch.dtype) -> None:
    """KP's documentation says that V comes no closer to W in pure bfloat16; nothing else stands still."""
    left = distance_left(rule, dtype)
    if (rule, dtype) == ("kp", torch.bfloat16):
        assert left == 1 and "bfloat16" in plugins.docstring("rule", rule)
    else:
        assert left < 0.5
