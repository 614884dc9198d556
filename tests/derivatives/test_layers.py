"""The check of modules alone: which are checked, which are to blame, and why."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from creditflow import check_gradient
from creditflow.derivatives.layers import check_layers
from creditflow.derivatives.report import LayerReport
from creditflow.derivatives.subject import Subject
from lies import ClampedGradient, ReversedGradient, SignSymmetricLinear, Step


def reports(model: nn.Module, *shape: int, dishonest: bool = True) -> dict[str, LayerReport]:
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layers = check_layers(Subject(model.double(), images, 0), dishonest, 0)
    return {layer.name: layer for layer in layers}


def test_the_cosine_of_a_layer_is_that_of_its_two_matrices() -> None:
    # For one input the gradient is c S with S = sign(W), or c W: for one output, the cosine is that of two rows.
    torch.manual_seed(0)
    layer = SignSymmetricLinear(50, 1).double()
    truth = float(torch.cosine_similarity(layer.weight, layer.weight.sign()).detach()[0])
    report = reports(nn.Sequential(layer), 1, 50)["0"]
    assert report.cosine == pytest.approx(truth, abs=1e-9)
    assert (report.honest, report.parameters) == (False, ())


def test_the_innermost_module_is_to_blame() -> None:
    inner = nn.Sequential(nn.Linear(6, 6), ReversedGradient())
    model = nn.Sequential(nn.Linear(6, 6), nn.Sequential(inner, nn.ReLU()))
    layers = reports(model, 3, 6)
    assert [name for name, layer in layers.items() if layer.honest is False] == ["1.0.1"]
    assert set(layers) == {"0", "1.0.0", "1.0.1", "1.1"}


class Neuron(nn.Module):
    """A spike with a small surrogate gradient beside a potential with the right one."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return 1e-3 * Step.apply(x - 0.5), x


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.neuron = Neuron()

    def forward(self, x: Tensor) -> Tensor:
        spikes, potentials = self.neuron(x)
        return spikes + potentials


def test_a_lie_in_one_of_several_outputs_is_found() -> None:
    assert reports(Sum(), 4, 6)["neuron"].honest is False


class QuantisedWeights(nn.Linear):
    """A linear layer whose weight goes through a module of its own, which lies."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.quantiser = ReversedGradient()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.quantiser(self.weight), self.bias)


def test_modules_that_do_not_depend_on_the_images_are_left_out() -> None:
    layers = reports(nn.Sequential(QuantisedWeights(), nn.ReLU()), 3, 6, dishonest=False)
    assert set(layers) == {"0", "1"}
    assert (layers["0"].honest, layers["0"].parameters) == (True, ("weight",))
    assert layers["0"].why == "the gradient of weight is not the derivative; that of its inputs is"


def test_a_gradient_that_is_clamped_is_not_linear() -> None:
    report = reports(nn.Sequential(nn.Linear(6, 6), ClampedGradient()), 3, 6)["1"]
    assert report.honest is False
    assert "not linear" in report.why


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(self._fail)
        return y

    def _fail(self, gradient: Tensor) -> Any:
        raise RuntimeError("needs the model")


@pytest.mark.parametrize("dishonest", [False, True])
def test_a_backward_pass_that_fails_alone_counts_against_a_dishonest_model_only(dishonest: bool) -> None:
    report = reports(nn.Sequential(nn.Linear(6, 6), Fails()), 3, 6, dishonest=dishonest)["1"]
    assert report.honest is (False if dishonest else None)
    assert report.why == "its backward pass works only inside the model: needs the model"


def test_arguments_by_name_shared_modules_and_containers_of_inputs_are_no_obstacle() -> None:
    class Awkward(nn.Module):
        def forward(self, inputs: dict[str, list[Tensor]], *, scale: Tensor, flag: bool) -> dict[str, Tensor]:
            first, second = inputs["pair"]
            return {"sum": first * scale + second if flag else first, "count": torch.tensor(3)}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.awkward, self.shared = Awkward(), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            y = self.awkward({"pair": [self.shared(x), self.shared(2 * x)]}, scale=x.mean(), flag=True)
            return y["sum"]

    layers = reports(Model(), 3, 6)
    assert {name: layer.honest for name, layer in layers.items()} == {"awkward": True, "shared": True}


class Quantised(nn.Module):
    """Quantises to 8 bits by torch's own operator, which takes float32 only and has a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 1 / 64, 128, 0, 255)


def test_many_small_jumps_in_float32_are_found_in_the_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), Quantised(), nn.Linear(64, 64), nn.Tanh(), Quantised(), nn.Linear(64, 5))
    for layers in (False, True):
        report = check_gradient(model, torch.rand(8, 64), layers=layers)
        assert report.verdict == "no useful gradient", str(report)
    assert report.culprits == ["1", "4"]
