"""The short way through a layer gives the numbers of the functions, bit by bit, and is left where it must not be."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

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


class Kernels(TorchDispatchMode):
    """Notes the strides of the weights that the backward passes of convolutions get."""

    def __init__(self) -> None:
        super().__init__()
        self.strides: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.strides.append(args[2].stride())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("is_short", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_the_backward_gets_v_in_the_layout_of_w(rule: str, is_short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_short:
        monkeypatch.setattr(layers, "is_usual", lambda weight, x: False)
    model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.Flatten(), nn.Linear(96, 3))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = apply_rule(model, rule, generator=torch.Generator().manual_seed(2))
    images = torch.rand(4, 1, 8, 8).requires_grad_()
    loss = view(images).square().sum()
    with Kernels() as kernels:
        loss.backward()
    # This layout of one channel is where arithmetic gives other strides.
    assert kernels.strides == [(25, 1, 5, 1)]


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
