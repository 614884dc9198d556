"""`check_gradient` on models whose truth is known: hand-written lies, and honest models that are easy to accuse."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from creditflow import apply_rule, check_gradient
from creditflow.compute.torchvision_import import torchvision
from creditflow.core.errors import UserError
from creditflow.derivatives.layers import ROOT
from lies import (
    ClippedGradient,
    CorrectExp,
    DetachTrick,
    FeedbackHook,
    ForgetsGradient,
    FunctionInForward,
    HookedTensor,
    ReversedGradient,
    Rounding,
    SignSymmetricLinear,
    Spiking,
    StraightThroughSign,
)


def images(n: int = 4, size: int = 8) -> Tensor:
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1))


LABELS = torch.tensor([0, 1, 2, 3])


def network(*middle: nn.Module) -> nn.Sequential:
    """A small honest network with a place for another layer, `5`."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 20)),
        *middle,
        *(nn.Tanh(), nn.Linear(20, 5)),
    ).eval()


LIES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "sign-symmetric": (lambda: SignSymmetricLinear(20, 20), "surrogate"),
    "clipped to half": (ClippedGradient, "surrogate"),
    "reversed": (ReversedGradient, "surrogate"),
    "backward hook": (lambda: FeedbackHook(20), "surrogate"),
    "hook on a tensor": (HookedTensor, "surrogate"),
    "straight-through sign": (StraightThroughSign, "no useful gradient"),
    "spikes": (Spiking, "no useful gradient"),
    "round": (Rounding, "no useful gradient"),
    "detach trick": (DetachTrick, "no useful gradient"),
    "no gradient": (ForgetsGradient, "no useful gradient"),
    "function in a container": (FunctionInForward, "surrogate"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_found_and_its_module_named(name: str) -> None:
    make, verdict = LIES[name]
    torch.manual_seed(1)
    report = check_gradient(network(make()), images(), LABELS)
    assert (report.verdict, report.culprits) == (verdict, ["5"]), str(report)
    assert "to blame: 5" in report.reason
    if verdict == "surrogate":  # at the smallest step every direction contradicts the lie
        assert report.disagreement[-1] == (1e-8, 1.0)
        assert report.agreement is not None
        assert report.agreement < 0.2


def test_cosines_are_those_of_the_two_gradients() -> None:
    torch.manual_seed(1)
    lie, x = network(SignSymmetricLinear(20, 20)).double(), images().double()
    honest = copy.deepcopy(lie)
    honest[5] = nn.Linear(20, 20).double()
    honest[5].load_state_dict(lie[5].state_dict())
    report = check_gradient(lie, x, LABELS)
    # The gradients of the loss at the images, whose points the check moves by a hundredth.
    own, exact = (input_gradient(model, x, LABELS).flatten() for model in (lie, honest))
    truth = float(torch.cosine_similarity(own, exact, dim=0))
    assert report.cosine == pytest.approx(truth, abs=0.05)
    assert report.numeric_cosine == pytest.approx(truth, abs=0.35)


def input_gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(model(x), labels, reduction="sum"), x)[0]


class Shifted(nn.Module):
    """A network, with a large number that is added to all logits of an image."""

    def __init__(self, body: nn.Module, shift: nn.Module) -> None:
        super().__init__()
        self.body, self.shift = body, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + 1e4 * self.shift(x).flatten(1)[:, :1]


@pytest.mark.parametrize("labels", [None, LABELS])
def test_what_is_added_to_all_logits_neither_hides_a_lie_nor_is_one(labels: Tensor | None) -> None:
    """Predictions do not depend on it. So only the gradient of the differences between logits counts."""
    torch.manual_seed(1)
    x = images().double()
    lie = Shifted(network(SignSymmetricLinear(20, 20)), nn.Identity()).double()
    assert check_gradient(lie, x, labels).verdict == "surrogate"
    harmless = Shifted(network(), ReversedGradient()).double()
    assert check_gradient(harmless, x, labels).verdict == "honest"


@pytest.mark.parametrize("rule", ["frsf", "dfa"])
def test_rules_of_this_project_are_surrogates_and_their_layers_are_named(rule: str) -> None:
    view = apply_rule(network(), rule, generator=torch.Generator().manual_seed(0))
    report = check_gradient(view, images(), LABELS)
    assert report.verdict == "surrogate"
    assert report.culprits == ["0", "4", "6"]
    assert check_gradient(apply_rule(network(), "bp"), images(), LABELS).verdict == "honest"


def test_straight_through_trick_in_the_model_itself_is_found() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, x: Tensor) -> Tensor:
            x = x + (torch.round(8 * x) / 8 - x).detach()
            return self.body(x)

    report = check_gradient(Quantised(), images(), LABELS)
    assert (report.verdict, report.culprits) == ("no useful gradient", [ROOT])


def test_gradients_of_parameters_alone_do_not_make_a_model_dishonest() -> None:
    class BinaryWeights(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = self.weight + (self.weight.sign() - self.weight).detach()
            return nn.functional.linear(x, weight, self.bias)

    report = check_gradient(network(BinaryWeights(20, 20)), images(), LABELS)
    assert (report.verdict, report.culprits) == ("honest", [])
    assert {layer.name: layer.parameters for layer in report.layers}["5"] == ("weight",)


class Attention(nn.Module):
    """Tokens through attention, layer normalisation and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(20, 2, dropout=0.1, batch_first=True)
        self.norm = nn.LayerNorm(20)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.view(len(x), 1, 20) * torch.linspace(0.5, 2, 3, dtype=x.dtype).view(1, 3, 1)
        return self.norm(tokens + self.attention(tokens, tokens, tokens)[0]).mean(1)


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * x


class Dead(nn.Module):
    """Half of its units are exactly zero, so that the next layer stands on its kinks."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :10], torch.zeros_like(x[:, 10:])], 1)


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    parts = [
        *(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Hardswish(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.LeakyReLU(inplace=True), nn.InstanceNorm2d(8)),
        *(nn.ReLU6(inplace=True), nn.AdaptiveMaxPool2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 5)),
    ]
    return nn.Sequential(*parts).eval()


HONEST: dict[str, Callable[[], nn.Module]] = {
    "kinks and norms": convolutions,
    "attention": lambda: network(Attention()).eval(),
    "smooth": lambda: network(nn.GELU(), nn.SiLU(), nn.Softplus(), nn.Hardtanh()),
    "a correct function": lambda: network(CorrectExp()),
    "saturated loss": lambda: nn.Sequential(network(), Scale()),
    "half of the units zero": lambda: network(Dead(), nn.ReLU(inplace=True), nn.Linear(20, 20, bias=False)),
    "LSTM": lambda: network(nn.Unflatten(1, (4, 5)), nn.LSTM(5, 5, batch_first=True), Last(), nn.Flatten()),
    "frozen": lambda: network().requires_grad_(False),
}


class Last(nn.Module):
    """Returns the outputs of an LSTM without its states."""

    def forward(self, returned: tuple[Tensor, Any]) -> Tensor:
        return returned[0]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_model_is_called_honest(name: str) -> None:
    # A black border: many pixels are equal, and so are the inputs of maxima.
    x = nn.functional.pad(images(size=6), [1, 1, 1, 1])
    report = check_gradient(HONEST[name](), x, LABELS)
    assert (report.verdict, report.culprits) == ("honest", []), str(report)
    assert report.precision == "float64"
    assert report.agreement == 1
    assert all(layer.honest for layer in report.layers), [layer for layer in report.layers if not layer.honest]


def test_a_model_whose_head_is_zero_is_honest_since_its_gradient_is_zero_too() -> None:
    model = network()
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    report = check_gradient(model, images(), LABELS)
    assert (report.verdict, report.culprits, report.cosine) == ("honest", [], None)
    assert "the same for all images" in report.reason


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_torchvision_models_are_honest(name: str) -> None:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(num_classes=5).eval()
    report = check_gradient(model, torch.rand(1, 3, 32, 32), layers=False)
    assert report.verdict == "honest", str(report)
    assert report.cosine == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("lie", [False, True])
def test_half_precision_is_compared_in_float64(dtype: torch.dtype, lie: bool) -> None:
    model = network(*([SignSymmetricLinear(20, 20)] if lie else [])).to(dtype)
    report = check_gradient(model, images().to(dtype), LABELS)
    assert (report.verdict, report.precision) == ("surrogate" if lie else "honest", "float64")


class OnlyFloat(nn.Module):
    """A layer that refuses all types but its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.dtype:
            raise TypeError("a kernel for one type only")
        return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_without_float64_are_compared_in_their_own_type(dtype: torch.dtype) -> None:
    for middle, verdict in (([], "honest"), ([ReversedGradient()], "surrogate"), ([DetachTrick()], None)):
        model = network(*middle, OnlyFloat(dtype)).to(dtype)
        report = check_gradient(model, images().to(dtype), LABELS)
        assert report.precision == str(dtype).removeprefix("torch.")
        assert "A copy in float64 does not work" in str(report)
        if verdict is not None:
            assert (report.verdict, report.culprits) == (verdict, ["5"] if middle else []), str(report)


def test_random_outputs_are_compared_with_one_seed() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 0.1 * torch.randn_like(x) * (1 + random.random()) * float(np.random.rand())

    report = check_gradient(network(Noise()), images(), LABELS)
    assert report.verdict == "honest"
    assert report.random_outputs
    assert "outputs are random" in str(report)


def test_everything_is_as_before_also_after_an_exception() -> None:
    model = network(Spiking(), FeedbackHook(20), nn.BatchNorm1d(20))
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[4].requires_grad_(False)
    model[5](torch.randn(4, 20))  # leaves a state behind
    before, hooks, flags = snapshot(model), [dict(m._backward_hooks) for m in model.modules()], torch.is_grad_enabled()
    x, generators = (
        images().requires_grad_(),
        (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()),
    )
    assert check_gradient(model, x, LABELS).verdict == "no useful gradient"
    with pytest.raises(UserError):
        check_gradient(model, x, LABELS + 3)
    assert x.grad is None
    for name, value in snapshot(model).items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(before[name])), name
    assert [dict(m._backward_hooks) for m in model.modules()] == hooks
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled() == flags
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert np.array_equal(np.random.get_state()[1], generators[1])
    assert random.getstate() == generators[2]


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Returns what a user could notice: tensors, gradients, flags, modes and the state between calls."""
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        values[f"{name} needs"] = parameter.requires_grad
        values[f"{name} grad"] = 0 if parameter.grad is None else parameter.grad.clone()
    for name, module in model.named_modules():
        values[f"{name} mode"] = module.training
        values[f"{name} potential"] = getattr(module, "potential", 0)
    return values


def test_the_report_can_be_printed_and_saved() -> None:
    report = check_gradient(network(SignSymmetricLinear(20, 20)), images(), LABELS)
    content = json.loads(json.dumps(report.to_dict()))
    assert content["verdict"] == "surrogate"
    assert content["culprits"] == ["5"]
    assert content["functions"] == ["SignSymmetric"]
    text = str(report)
    assert text.startswith("surrogate: ")
    assert "SignSymmetricLinear: its gradient is not the derivative (custom function SignSymmetric)" in text
    assert (
        check_gradient(network(), images(), LABELS).to_dict() == check_gradient(network(), images(), LABELS).to_dict()
    )


class Returns(nn.Module):
    """A network whose outputs are changed in one way."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.change = network(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.body(x))


class CountsCalls(nn.Module):
    """Draws from a generator of its own, which no seed fixes and no copy of the module resets."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand(1, generator=OWN_GENERATOR)


OWN_GENERATOR = torch.Generator()

MISTAKES: dict[str, tuple[Callable[[], tuple[Any, ...]], str]] = {
    "no module": (lambda: (torch.sin, images()), "must be a torch.nn.Module"),
    "training mode": (lambda: (network(nn.Dropout()).train(), images()), r"training mode.*call model.eval\(\) first"),
    "tuple": (lambda: (Returns(lambda y: (y, y)), images()), "returns tuple, not a tensor: wrap it"),
    "one output": (lambda: (Returns(lambda y: y[:, :1]), images()), r"shape \[4, 1\].*K of at least 2"),
    "predictions": (lambda: (Returns(lambda y: y.argmax(1)), images()), "before argmax"),
    "NaN outputs": (lambda: (Returns(lambda y: y / 0 * 0), images()), "NaN or infinity for these images"),
    "NaN images": (lambda: (network(), images() / 0 * 0), "images contain NaN"),
    "integers": (lambda: (network(), (255 * images()).byte()), r"use images.float\(\) / 255"),
    "wrong size": (lambda: (network(), images(size=9)[:, :, :5]), "cannot take images of shape"),
    "wrong type": (lambda: (network(), images().double()), "cannot take images of shape .* and type torch.float64"),
    "no images": (lambda: (network(), images()[:0]), "at least one image"),
    "array": (lambda: (network(), images().numpy()), "must be a torch.Tensor"),
    "too few labels": (lambda: (network(), images(), LABELS[:2]), "one label for each of 4 images"),
    "labels out of range": (lambda: (network(), images(), LABELS + 2), "from 2 to 5.*5 outputs"),
    "labels as numbers": (lambda: (network(), images(), LABELS.float()), "integer labels"),
    "own generator": (lambda: (network(CountsCalls()), images()), "other outputs at each call"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_what_to_do(name: str) -> None:
    make, message = MISTAKES[name]
    with pytest.raises(UserError, match=message) as caught:
        check_gradient(*make())
    assert "\n" not in str(caught.value)


def test_a_loss_of_the_users_is_checked_too() -> None:
    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient / 2

    targets = torch.rand(4, 5)
    honest = check_gradient(network(), images(), targets, loss=nn.functional.mse_loss, layers=False)
    lying = check_gradient(
        network(), images(), targets, loss=lambda y, t: Halved.apply(y - t).square().sum(), layers=False
    )
    assert honest.verdict == "honest"
    assert lying.verdict == "surrogate"
    assert "the own gradient of the loss is not its derivative" in lying.reason
    with pytest.raises(UserError, match="a loss needs labels"):
        check_gradient(network(), images(), loss=nn.functional.mse_loss)
