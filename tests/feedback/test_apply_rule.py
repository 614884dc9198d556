"""Feedback rules against autograd, an independent float64 computation, and their definitions."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from creditflow import apply_rule, feedback_state
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.apply import feedback_layers
from creditflow.feedback.backward import _SMALL_KERNELS
from creditflow.feedback.rule import Rule
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import Awkward, small_model, subset

RULES = plugins.names("rule")
SIGN_SYMMETRIC = ["usf", "frsf", "brsf"]
TRANSPORT = Rule(feedback_weight=lambda weight, state: weight.clone())


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    loss = (model(x) ** 2).sum()
    return list(torch.autograd.grad(loss, [x, *model.parameters()]))


@pytest.mark.parametrize("rule", [TRANSPORT, *RULES], ids=["V=W", *RULES])
def test_with_the_forward_weights_as_feedback_every_rule_is_backpropagation(rule: str | Rule) -> None:
    torch.manual_seed(0)
    model = Awkward().double()
    x = torch.randn(5, 4, 11, 11, dtype=torch.float64)
    view = apply_rule(model, rule, generator=gen())
    for _, layer in feedback_layers(view):
        layer.rule = TRANSPORT
    for through_view, plain in zip(gradients(view, x), gradients(model, x), strict=True):
        torch.testing.assert_close(through_view, plain, rtol=1e-10, atol=1e-12)


def test_unbatched_and_no_grad_inputs_give_the_plain_output() -> None:
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(2, 6, 6)
    view = apply_rule(nn.Sequential(conv), "usf")
    torch.testing.assert_close(view(x), conv(x))
    with torch.no_grad():
        torch.testing.assert_close(view(x[None]), conv(x[None]))


def naive_conv(
    x: np.ndarray, w: np.ndarray, delta: np.ndarray, v: np.ndarray, stride: int, dilation: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (dx through v, dw) of a convolution without padding, by its definition, one product at a time."""
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, o, i, j in np.ndindex(*delta.shape):
        for c, a, b in np.ndindex(*w.shape[1:]):
            row, column = i * stride + a * dilation, j * stride + b * dilation
            dx[n, c, row, column] += delta[n, o, i, j] * v[o, c, a, b]
            dw[o, c, a, b] += delta[n, o, i, j] * x[n, c, row, column]
    return dx, dw


@pytest.mark.parametrize("rule", ["usf", "frsf", "fa"])
def test_gradients_equal_an_independent_computation_with_the_same_feedback(rule: str) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 2, stride=2, dilation=2), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(18, 4)
    ).double()
    x = torch.randn(3, 2, 10, 10, dtype=torch.float64)
    view = apply_rule(net, rule, generator=gen())
    ours = gradients(view, x)

    v1, v2, v3 = (layer.feedback_weight().numpy() for _, layer in feedback_layers(view))
    w1, w2 = net[0].weight.detach().numpy(), net[2].weight.detach().numpy()
    with torch.no_grad():
        h1 = net[1](net[0](x)).numpy()
        h2 = net[2](torch.from_numpy(h1)).flatten(1).numpy()
        delta3 = 2 * net(x).numpy()
    delta2 = (delta3 @ v3).reshape(3, 2, 3, 3)
    dh1, dw2 = naive_conv(h1, w2, delta2, v2, 1, 1)
    delta1 = dh1 * (1 - h1**2)
    dx, dw1 = naive_conv(x.numpy(), w1, delta1, v1, 2, 2)
    expected = [dx, dw1, delta1.sum((0, 2, 3)), dw2, delta2.sum((0, 2, 3)), delta3.T @ h2, delta3.sum(0)]
    for gradient, by_hand in zip(ours, expected, strict=True):
        np.testing.assert_allclose(gradient.numpy(), by_hand, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", [(), (3,)], ids=["rows", "tokens"])
@pytest.mark.parametrize("rule", SIGN_SYMMETRIC)
def test_v_made_in_blocks_gives_what_v_as_a_whole_gives(
    rule: str, positions: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(5, 29).double()
    with torch.no_grad():
        linear.weight[3] = 0.0
    view = apply_rule(nn.Sequential(linear), rule, generator=gen())
    monkeypatch.setattr(
        "creditflow.feedback.backward._BLOCK", {"cpu": 2 * linear.weight[0].nbytes}
    )  # of two rows, or as many as the error has
    x, error = torch.randn(4, *positions, 5).double().requires_grad_(), torch.randn(4, *positions, 29).double()
    (ours,) = torch.autograd.grad(view(x), x, error)
    torch.testing.assert_close(ours, error @ view[0].feedback_weight())
    assert (view[0].feedback_weight()[3] == 0).all()


def test_half_precision_loses_no_more_in_blocks_than_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    view = apply_rule(nn.Sequential(nn.Linear(64, 512)), "frsf", generator=gen())
    monkeypatch.setattr("creditflow.feedback.backward._BLOCK", {"cpu": 0})
    x, error = torch.randn(2, 64, requires_grad=True), torch.randn(2, 512).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = view(x)
    (ours,) = torch.autograd.grad(output, x, error)
    expected = error.float() @ view[0].feedback_weight()
    assert (ours - expected).norm() < 0.004 * expected.norm()


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf", "fa", "dfa"])
def test_between_forward_and_backward_a_layer_keeps_its_input_its_weight_and_its_state(rule: str) -> None:
    model, x = Awkward(), torch.randn(2, 4, 11, 11)
    view = apply_rule(model, rule, generator=gen())
    known = {tensor.untyped_storage().data_ptr() for tensor in model.parameters()}
    known |= {
        tensor.untyped_storage().data_ptr() for _, layer in feedback_layers(view) for tensor in layer.state.values()
    }

    def kept(network: nn.Module) -> int:
        network(x)  # the first pass proves the rule, if need be on a copy
        new = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            new[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(x)
        return sum(nbytes for pointer, nbytes in new.items() if pointer not in known)

    assert kept(view) <= kept(model)


@pytest.mark.parametrize("rule", RULES)
def test_a_weight_changed_between_forward_and_backward_is_refused(rule: str) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    loss = apply_rule(model, rule, generator=gen())(torch.randn(4, 3)).sum()
    with torch.no_grad():
        model[1].weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_batch_normalisation_keeps_its_exact_backward() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2)
    view = apply_rule(nn.Sequential(norm, nn.Conv2d(2, 2, 1)), "fa", generator=gen())
    x = torch.randn(4, 2, 3, 3, requires_grad=True)
    h = norm(x)
    error = torch.nn.functional.conv_transpose2d(torch.ones(4, 2, 3, 3), view[1].feedback_weight())
    (expected,) = torch.autograd.grad(h, x, error)
    (ours,) = torch.autograd.grad(view(x).sum(), x)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("rule", RULES)
def test_after_training_signs_agree_where_the_rule_says_so(rule: str) -> None:
    model, data = small_model(), subset()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TrainingSettings(epochs=3, batch_size=10, learning_rate=0.02)
    state, history = train(model, rule, TrainingData(data, data), settings, Streams("test", 0))
    assert history[-1]["train_accuracy"] > 0.8  # every rule learns this
    assert not torch.equal(start["backbone.0.weight"], model.backbone[0].weight)
    view = apply_rule(model, rule, state=state)
    layers = dict(feedback_layers(view))
    assert bool(layers) == (rule != "bp")
    for layer in layers.values():
        if not layer.rule.direct:  # whose V is of another shape
            agree = (layer.feedback_weight().sign() == layer.weight.sign()).float().mean()
            assert agree == 1 if rule in SIGN_SYMMETRIC else agree < 1
    for name, tensor in feedback_state(view).items():
        assert torch.equal(tensor, state[name])


def test_a_large_convolution_makes_its_gradients_one_after_the_other_and_alike() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(256, 256, 3, stride=2, padding=1, groups=2)
    assert layer.weight.nbytes > _SMALL_KERNELS
    x = torch.randn(2, 256, 5, 5, requires_grad=True)
    error = torch.randn(2, 256, 3, 3)
    for parameters in (list(layer.parameters()), [layer.bias]):
        exact, ours = (
            torch.autograd.grad(module(x), [x, *parameters], error)
            for module in (layer, apply_rule(nn.Sequential(layer), TRANSPORT))
        )
        for plain, through_view in zip(exact, ours, strict=True):
            torch.testing.assert_close(plain, through_view)


def test_one_backward_kernel_per_layer() -> None:
    calls: Counter[str] = Counter()

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            calls[func.overloadpacket.__name__] += 1
            return func(*args, **(kwargs or {}))

    view = apply_rule(Awkward(), "frsf", generator=gen())
    x = torch.randn(2, 4, 11, 11)
    view(x)  # computes the feedback weights
    with Count():
        view(x).sum().backward()
    assert calls["convolution_backward"] == calls["convolution"] == 5


@pytest.mark.parametrize(
    "make", [lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.Linear(8, 4)], ids=["conv", "linear"]
)
def test_autocast_gives_the_types_and_values_of_the_plain_layer(make: object) -> None:
    torch.manual_seed(0)
    layer = make()  # type: ignore[operator]
    view = apply_rule(nn.Sequential(layer), TRANSPORT)
    x = torch.randn(2, 3, 8, 8)
    results = []
    for module in (layer, view):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = module(x)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), list(layer.parameters()))])
    for plain, ours in zip(*results, strict=True):
        assert plain.dtype == ours.dtype
        torch.testing.assert_close(plain, ours, rtol=0.02, atol=0.02)


def test_autocast_leaves_float64_alone() -> None:
    layer = nn.Linear(3, 2).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert apply_rule(nn.Sequential(layer), TRANSPORT)(x).dtype == layer(x).dtype == torch.float64


def test_the_users_model_stays_as_it_is_and_shares_its_weights() -> None:
    model = Awkward()
    types = [type(module) for module in model.modules()]
    view = apply_rule(model, "fa", generator=gen())
    assert [type(module) for module in model.modules()] == types
    assert list(model.state_dict()) == list(view.state_dict())
    for of_view, of_model in zip(view.parameters(), model.parameters(), strict=True):
        assert of_view is of_model
    view(torch.randn(3, 4, 11, 11))
    assert torch.equal(view.layers[1].running_mean, model.layers[1].running_mean)
    assert model.layers[1].num_batches_tracked == 1


def test_mistakes_end_in_a_clear_line() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    cases = [
        (plain, "frfs", {}, "did you mean 'frsf'"),
        (plain, "frsf", {}, "pass generator="),
        (nn.TransformerEncoderLayer(4, 2), "usf", {}, "MultiheadAttention"),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
            "usf",
            {},
            "layer '0' of type ParametrizedLinear",
        ),
        (apply_rule(plain, "usf"), "usf", {}, "already"),
        (plain, "frsf", {"state": {}}, "no '0.magnitude'"),
        (plain, "frsf", {"state": {"0.magnitude": torch.ones(2, 2), "1.magnitude": torch.ones(2, 2)}}, "'1.magnitude'"),
        (plain, "frsf", {"state": {"0.magnitude": torch.ones(3, 2)}}, r"\[3, 2\]"),
        (
            plain,
            Rule(feedback_weight=lambda weight, state: weight[:1]),
            {},
            r"V for layer '0' has shape \[1, 2\], not \[2, 2\]",
        ),
        (
            plain,
            Rule(feedback_weight=lambda weight, state, out=None: weight / weight.norm(), elementwise=True),
            {},
            "depends on other rows",
        ),
    ]
    for model, rule, arguments, message in cases:
        with pytest.raises(UserError, match=message):
            apply_rule(model, rule, **arguments)  # type: ignore[arg-type]
