"""The short way through a layer gives the numbers of the functions, bit by bit, and is left where it must not be."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow import apply_rule, exact_gradients
from creditflow.feedback import layers

RULES = ["usf", "frsf", "brsf", "fa", "kp", "wm"]


def network() -> nn.Module:
    torch.manual_seed(0)
    convolutions = nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2), nn.ReLU()
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(54, 7), nn.Tanh(), nn.Linear(7, 3))


def gradients(view: nn.Module) -> list[Tensor]:
    images = torch.rand(5, 2, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss = F.cross_entropy(view(images), torch.tensor([0, 1, 2, 0, 1]))
    return list(torch.autograd.grad(loss, [images, *view.parameters()]))


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Returns a list that gets True for each pass that may take the short way and False for each other."""
    taken: list[bool] = []
    usual = layers.is_usual

    def noted(weight: object, x: Tensor) -> bool:
        taken.append(usual(weight, x))
        return taken[-1]

    monkeypatch.setattr(layers, "is_usual", noted)
    return taken


@pytest.mark.parametrize("rule", RULES)
def test_both_ways_give_the_same_bits(rule: str, ways: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()

    def view() -> nn.Module:
        return apply_rule(model, rule, generator=torch.Generator().manual_seed(2))

    short = gradients(view())
    assert ways and all(ways)
    monkeypatch.setattr(layers, "is_usual", lambda weight, x: False)
    assert all(torch.equal(a, b) for a, b in zip(short, gradients(view()), strict=True))
    assert not torch.equal(short[0], gradients(model)[0])


@pytest.mark.parametrize("rule", RULES)
def test_exact_gradients_are_those_of_the_model(rule: str, ways: list[bool]) -> None:
    model = network()
    view = apply_rule(model, rule, generator=torch.Generator().manual_seed(2))
    with exact_gradients(view):
        inside = gradients(view)
    assert ways and not any(ways)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(inside, gradients(model), strict=True))


def test_a_weight_changed_between_the_passes_is_an_error() -> None:
    view = apply_rule(network(), "usf")
    loss = view(torch.rand(2, 2, 8, 8).requires_grad_()).sum()
    with torch.no_grad():
        next(view.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        loss.backward()
