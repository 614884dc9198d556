"""Whose gradient an attack on a given model follows, against autograd of the plain network."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.attacks.foreign import Beside
from creditflow.core.errors import UserError
from creditflow.models.factories import make_model
from creditflow.models.fitting import check_outputs_of
from creditflow.models.storage import load_model, save_model
from creditflow.stages import attacking
from creditflow.stages.measuring import placed

MODULE = """
import torch
from torch import nn
from torch.nn import functional as F

class Lie(torch.autograd.Function):
    '''A linear layer whose backward pass sends the error through ones.'''
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)
    @staticmethod
    def backward(ctx, error):
        x, weight = ctx.saved_tensors
        return error @ torch.ones_like(weight), error.T @ x

class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return (x > 0).float()
    @staticmethod
    def backward(ctx, error):
        return error

class Net(nn.Module):
    '''It flattens maps by `view`, which takes no other layout.'''
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.conv, self.first, self.last = nn.Conv2d(2, 3, 3), nn.Linear(48, 7, bias=False), nn.Linear(7, 4)
    def forward(self, x):
        x = torch.tanh(self.conv(x))
        x = x.view(len(x), -1)
        x = Lie.apply(x, self.first.weight) if self.kind == "lie" else self.first(x)
        x = Step.apply(x) if self.kind == "step" else torch.tanh(x)
        return self.last(x)

def lie(): return Net("lie")
def plain(): return Net("plain")
def step(): return Net("step")
def pair():
    class Pair(nn.Module):
        def forward(self, x): return x, x
    return Pair()
def alone(): return nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.Flatten(0))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(MODULE, encoding="utf-8")
    for name, verdict in (("lie", "surrogate"), ("plain", "honest"), ("step", "no useful gradient")):
        factory = f"nets.py:{name}"
        save_model(f"{name}.safetensors", make_model(factory), factory=factory, gradient={"verdict": verdict})
    return tmp_path


def args_for(name: str, gradient: str, **options: object) -> argparse.Namespace:
    given = {"surrogate": [], "expect_surrogate": [], "seed": 0, "data": None} | options
    return argparse.Namespace(model=Path(f"{name}.safetensors"), gradient=gradient, **given)


def gradient_of(model: nn.Module) -> Tensor:
    x = torch.linspace(0, 1, 3 * 2 * 36).view(3, 2, 6, 6).requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(x), torch.tensor([0, 1, 2])), x)[0]


def seen(name: str, gradient: str) -> Tensor:
    model = placed(load_model(f"{name}.safetensors"), torch.device("cpu"))
    return gradient_of(attacking.attacker_view(args_for(name, gradient), model).requires_grad_(False))


@pytest.mark.usefixtures("here")
def test_exact_is_the_derivative_and_own_the_backward_pass() -> None:
    lie, plain = load_model("lie.safetensors"), make_model("nets.py:plain")
    plain.load_state_dict(lie.state_dict())
    torch.testing.assert_close(seen("lie", "exact"), gradient_of(Beside(plain)), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(seen("lie", "own"), gradient_of(lie))
    assert not torch.allclose(seen("lie", "own"), gradient_of(plain), rtol=0.1)
    honest = load_model("plain.safetensors")
    torch.testing.assert_close(seen("plain", "own"), gradient_of(honest), rtol=0, atol=0)
    torch.testing.assert_close(seen("plain", "exact"), gradient_of(Beside(honest)), rtol=0, atol=0)


@pytest.mark.usefixtures("here")
def test_a_derivative_that_is_of_no_use_is_zero() -> None:
    assert not seen("step", "exact").any() and seen("step", "own").any()


@pytest.mark.usefixtures("here")
def test_images_are_made_on_the_exact_gradient_of_a_surrogate() -> None:
    model = load_model("plain.safetensors")
    for name in ("lie", "step"):
        args = args_for("plain", "surrogate:twin", surrogate=[("twin", Path(f"{name}.safetensors"))])
        surrogate = attacking.helpers(args, model).surrogates["twin"]
        wanted = "own" if name == "step" else "exact"
        torch.testing.assert_close(gradient_of(surrogate), seen(name, wanted))


@pytest.mark.usefixtures("here")
def test_gradients_that_a_model_has_not_are_refused() -> None:
    with pytest.raises(UserError, match=r"feedback: lie\.safetensors is a given model, which no rule has trained; use"):
        seen("lie", "feedback")
    save_model("unchecked.safetensors", make_model("nets.py:step"), factory="nets.py:step")
    with pytest.raises(UserError, match="Step"):  # nobody has found out that the derivative is zero
        seen("unchecked", "exact")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("name", "size", "n_classes", "message"),
    [
        ("lie", 7, 4, r"cannot take images \(2, 7, 7\) in \[0, 1\] \(RuntimeError: .*\); give it images of its size"),
        ("lie", 6, 5, "gives 4 numbers for each image, but the data has 5 classes"),
        ("pair", 6, 4, "gives tuple, not a tensor of logits"),
        ("alone", 6, 4, r"gives outputs \(8\) for 2 images \(2, 6, 6\), not \(images, classes\)"),
    ],
)
def test_models_that_do_not_fit_the_images(name: str, size: int, n_classes: int, message: str) -> None:
    with pytest.raises(UserError, match=f"^it {message}") as caught:
        check_outputs_of(make_model(f"nets.py:{name}"), torch.rand(2, 2, size, size), n_classes, "it")
    assert "\n" not in str(caught.value)
