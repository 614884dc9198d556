"""The proof that a rule is there: in compiled views, against functions of one's own, and against what is captured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from creditflow import apply_rule, feedback_state
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.apply import get_rule
from creditflow.feedback.proof import _proof_of, prove
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

RULES = [rule for rule in plugins.names("rule") if not get_rule(rule).exact]
every_rule = pytest.mark.parametrize("rule", RULES)


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Model(nn.Module):
    """Two layers, of which `use` makes something, with batch normalisation and dropout between them."""

    def __init__(self, use: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.one, self.norm, self.drop, self.two = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.drop(self.norm(self.use(self, x))))


def called(net: Any, x: Tensor) -> Tensor:
    return net.one(x)


def tied(net: Any, x: Tensor) -> Tensor:
    return F.linear(x, net.one.weight)


class Own(torch.autograd.Function):
    """A linear layer of one's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return error @ weight, error.t() @ x


ELSEWHERE: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a function of one's own": lambda net, x: Own.apply(x, net.one.weight),
    "a function of one's own, detached": lambda net, x: Own.apply(x, net.one.weight.detach()),
    "an operator": lambda net, x: torch.ops.aten.linear(x, net.one.weight),
    "the C library": lambda net, x: torch._C._nn.linear(x, net.one.weight),
    "NumPy": lambda net, x: F.linear(x, torch.from_numpy(net.one.weight.detach().numpy())),
    "data": lambda net, x: F.linear(x, net.one.weight.data),
    "a parameter made of it": lambda net, x: F.linear(x, nn.Parameter(net.one.weight.detach().clone())),
    "vmap": lambda net, x: torch.vmap(lambda row: F.linear(row, net.one.weight))(x),
    "einsum": lambda net, x: torch.einsum("ni,oi->no", x, net.one.weight),
    "rows": lambda net, x: torch.cat([net.one.weight[i : i + 1] @ x.t() for i in range(4)]).t(),
    "functional_call": lambda net, x: torch.func.functional_call(
        nn.Linear(4, 4, bias=False), {"weight": net.one.weight}, (x,)
    ),
    "attention": lambda net, x: F.scaled_dot_product_attention(x[None], net.one.weight[None], net.one.weight[None])[0],
    "the forward of Linear": lambda net, x: nn.Linear.forward(net.one, x),
}


@pytest.mark.parametrize("use", ELSEWHERE)
def test_a_weight_that_is_used_elsewhere_is_found(use: str) -> None:
    view = apply_rule(Model(ELSEWHERE[use]), "fa", generator=gen())
    with pytest.raises(UserError, match=r"^the rule has no effect on layer 'one'"):
        view(torch.randn(3, 4))


def test_functions_of_ones_own_for_other_weights_are_fine() -> None:
    plain = Model(lambda net, x: Own.apply(net.one(x), torch.eye(4)))
    view = apply_rule(plain, "fa", generator=gen()).eval()
    x = torch.randn(3, 4, requires_grad=True)
    torch.testing.assert_close(view(x), plain.eval()(x))
    view(x).sum().backward()


@every_rule
def test_a_proof_changes_neither_the_view_nor_random_numbers(rule: str) -> None:
    views = [apply_rule(Model(called), rule, generator=gen()) for _ in range(2)]
    views[1].load_state_dict(views[0].state_dict())
    x, outputs = torch.randn(3, 4), []
    for index, view in enumerate(views):
        torch.manual_seed(0)
        if index:
            prove(view, x)
            assert _proof_of(view).proved == {True}
        outputs.append((view(x), torch.get_rng_state(), view.state_dict(), feedback_state(view)))
    assert torch.equal(outputs[0][0], outputs[1][0]) and torch.equal(outputs[0][1], outputs[1][1])
    for ours, expected in zip(outputs[0][2].values(), outputs[1][2].values(), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.slow  # the compiler takes seconds to be imported
@pytest.mark.parametrize("compiled", ["view", "model", "view.compile()"])
def test_what_a_user_compiles_is_proved_before_its_first_pass(compiled: str) -> None:
    def made(use: Callable[[Any, Tensor], Tensor]) -> tuple[nn.Module, Any]:
        plain = Model(use)
        view = apply_rule(
            torch.compile(plain, backend="eager") if compiled == "model" else plain, "fa", generator=gen()
        )
        if compiled == "view.compile()":
            view.compile(backend="eager")
        return view, torch.compile(view, backend="eager") if compiled == "view" else view

    view, fast = made(tied)
    with pytest.raises(UserError, match=r"^the rule has no effect on layer 'one'"):
        fast(torch.randn(3, 4))
    view, fast = made(called)
    for training in (True, False):
        fast.train(training)
        view.train(training)
        x = torch.randn(3, 4, requires_grad=True)
        fast(x).square().sum().backward()
    assert _proof_of(view).proved == {True, False}
    assert int(next(buffer for name, buffer in view.named_buffers() if name.endswith("tracked"))) == 1


def test_training_with_the_compiler_proves_the_rule_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda view: view)
    monkeypatch.setattr(torch.compiler, "disable", lambda function: function)
    settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=0.01, compile=True)
    data, model = subset(), small_model()
    train(model, "fa", TrainingData(data, data), settings, Streams("test", 0))
    monkeypatch.setattr(type(model), "forward", lambda net, x: F.linear(x.flatten(1)[:, :8], net.head.weight[:, :8]))
    with pytest.raises(UserError, match=r"^the rule has no effect on layer 'head'"):
        train(model, "fa", TrainingData(data, data), settings, Streams("test", 0))


@pytest.mark.filterwarnings("ignore")
@every_rule
@pytest.mark.parametrize("with_gradients", [True, False])
@pytest.mark.parametrize("capture", ["trace", "script", "export", "fx", "make_fx"])
def test_a_view_cannot_be_captured(rule: str, with_gradients: bool, capture: str) -> None:
    from torch.fx.experimental.proxy_tensor import make_fx

    view, x = apply_rule(nn.Sequential(nn.Linear(4, 3)), rule, generator=gen()), torch.randn(2, 4)
    captures: dict[str, Callable[[], object]] = {
        "trace": lambda: torch.jit.trace(view, x, check_trace=False),
        "script": lambda: torch.jit.script(view),
        "export": lambda: torch.export.export(view, (x,)),
        "fx": lambda: torch.fx.symbolic_trace(view),
        "make_fx": lambda: make_fx(view)(x),
    }
    with torch.set_grad_enabled(with_gradients), pytest.raises(UserError, match=r"^a view cannot be traced") as refused:
        captures[capture]()
    assert "\n" not in str(refused.value)
    view(x).sum().backward()  # and afterwards the view still works


@every_rule
@pytest.mark.parametrize("transform", ["jacrev", "jacfwd", "hessian", "linearize", "functionalize"])
def test_further_transforms_are_refused(rule: str, transform: str) -> None:
    view, x = apply_rule(nn.Sequential(nn.Linear(4, 3)), rule, generator=gen()), torch.randn(2, 4)
    with pytest.raises(UserError, match=r"^a view works under no transform|^a view cannot be traced"):
        if transform == "linearize":
            torch.func.linearize(view, x)
        else:
            getattr(torch.func, transform)(lambda x: view(x).sum())(x)


@every_rule
def test_several_errors_at_once_give_what_one_after_the_other_gives(rule: str) -> None:
    view = apply_rule(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), rule, generator=gen())
    x = torch.randn(2, 4, requires_grad=True)
    output, errors, wanted = view(x), torch.randn(6, 2, 3), [x, *view.parameters()]
    together = torch.autograd.grad(output, wanted, errors, is_grads_batched=True, retain_graph=True)
    alone = [torch.autograd.grad(output, wanted, error, retain_graph=True) for error in errors]
    for ours, expected in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(expected))


@pytest.mark.filterwarnings("ignore")
@every_rule
@pytest.mark.parametrize(
    "change",
    [
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        nn.utils.weight_norm,
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    ],
)
def test_a_weight_that_follows_from_others_later_is_refused(rule: str, change: Callable[[nn.Module], object]) -> None:
    view = apply_rule(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)), rule, generator=gen())
    change(view[0])
    with pytest.raises(UserError, match="now follows from other tensors"):
        view(torch.randn(2, 4))


@every_rule
@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_layers_without_inputs_or_outputs(rule: str, shape: tuple[int, int]) -> None:
    view = apply_rule(nn.Sequential(nn.Linear(*shape), nn.Linear(shape[1], 2)), rule, generator=gen())
    view(torch.randn(2, shape[0], requires_grad=True)).sum().backward()
    assert [parameter.grad.shape for parameter in view.parameters()] == [p.shape for p in view.parameters()]


@every_rule
@pytest.mark.parametrize(
    ("option", "message"), [({"dtype": torch.complex64}, "is complex"), ({"device": "meta"}, "me")]
)
def test_weights_without_real_values_are_refused(rule: str, option: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^no feedback rule can be put on layer '0' of type Linear, .*{message}"):
        apply_rule(nn.Sequential(nn.Linear(4, 3, **option)), rule, generator=gen())


@every_rule
def test_a_state_that_was_looked_at_in_inference_mode_serves_training(rule: str) -> None:
    view = apply_rule(nn.Sequential(nn.Linear(4, 3)), rule, generator=gen())
    with torch.no_grad():
        view[0].weight.mul_(1.1)
    with torch.inference_mode():
        feedback_state(view), view(torch.randn(2, 4))
    view(torch.randn(2, 4, requires_grad=True)).sum().backward()
