"""Feedback rules against autograd, an independent float64 computation, and their definitions."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from creditflow import apply_rule, feedback_state, plugins
from creditflow.errors import UserError
from creditflow.learning import Rule, feedback_layers, get_rule
from creditflow.training import TrainingSettings, train
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
    for ours, theirs in zip(gradients(view, x), gradients(model, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_unbatched_and_no_grad_inputs_give_the_plain_output() -> None:
    conv, x = nn.Conv2d(2, 3, 3), torch.randn(2, 6, 6)
    view = apply_rule(nn.Sequential(conv), "usf")
    torch.testing.assert_close(view(x), conv(x))
    with torch.no_grad():
        torch.testing.assert_close(view(x[None]), conv(x[None]))


def naive_conv(x: np.ndarray, w: np.ndarray, delta: np.ndarray, v: np.ndarray, stride: int, dilation: int) -> tuple[np.ndarray, np.ndarray]:
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
    net = nn.Sequential(nn.Conv2d(2, 3, 2, stride=2, dilation=2), nn.Tanh(), nn.Conv2d(3, 2, 2), nn.Flatten(), nn.Linear(18, 4)).double()
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
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-10, atol=1e-12)


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


@pytest.mark.parametrize("weight", [torch.empty(7, 5), torch.empty(30, 20, 3, 3)], ids=["linear", "conv"])
def test_magnitudes_have_glorots_scale(weight: torch.Tensor) -> None:
    torch.manual_seed(0)
    weight = torch.randn_like(weight)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    sigma = math.sqrt(2 / (fan_in + fan_out))
    torch.testing.assert_close(get_rule("usf").feedback_weight(weight, {}), sigma * weight.sign())
    for name in ("frsf", "brsf"):
        rule = get_rule(name)
        draws = torch.stack([rule.initial_state(weight, gen(seed))["magnitude"] for seed in range(200)])
        assert draws.min() >= 0
        assert draws.max() <= math.sqrt(3) * sigma
        assert draws.square().mean().sqrt().item() == pytest.approx(sigma, rel=0.02)  # equal second moment
    fixed = torch.stack([get_rule("fa").initial_state(weight, gen(seed))["feedback_weight"] for seed in range(200)])
    assert fixed.std().item() == pytest.approx(sigma, rel=0.02)
    assert abs(fixed.mean().item()) < 0.02 * sigma


# Fused optimisers change weights without advancing their version counters.
@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_brsf_redraws_once_per_update_and_never_while_looking(kind: type[torch.optim.Optimizer], options: dict[str, bool]) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    view = apply_rule(model, "brsf", generator=gen())
    optimizer = kind(model.parameters(), lr=0.1, **options)
    layer = view[2]
    seen = []
    for _ in range(3):
        view(torch.randn(5, 4)).sum().backward()
        before = layer.feedback_weight().clone()
        view.eval()(torch.randn(5, 4)).sum().backward()  # a second look, an evaluation: same magnitudes
        assert torch.equal(layer.feedback_weight(), before)
        optimizer.step()
        seen.append(before.abs())
        assert torch.equal(layer.feedback_weight().sign(), model[2].weight.sign())
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("rule", RULES)
def test_after_training_signs_agree_where_the_rule_says_so(rule: str) -> None:
    model, data = small_model(), subset()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = TrainingSettings(epochs=3, batch_size=10, learning_rate=0.02)
    state, history = train(model, rule, data, data, settings, seed=0, stream="test")
    assert history[-1]["train_accuracy"] > 0.8  # every rule learns this
    assert not torch.equal(start["backbone.0.weight"], model.backbone[0].weight)
    view = apply_rule(model, rule, state=state)
    layers = dict(feedback_layers(view))
    assert bool(layers) == (rule != "bp")
    for layer in layers.values():
        agree = (layer.feedback_weight().sign() == layer.weight.sign()).float().mean()
        assert agree == 1 if rule in SIGN_SYMMETRIC else agree < 1
    for name, tensor in feedback_state(view).items():
        assert torch.equal(tensor, state[name])


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


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 3, padding=1), lambda: nn.Linear(8, 4)], ids=["conv", "linear"])
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


def test_brsf_continues_from_its_state_in_whatever_order_layers_are_visited() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    view = apply_rule(model, "brsf", generator=gen())
    saved = feedback_state(view)
    again = apply_rule(model, "brsf", state=saved)  # no generator
    for update in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1)
        forwards = [layer.feedback_weight() for _, layer in feedback_layers(view)]
        backwards = [layer.feedback_weight() for _, layer in reversed(list(feedback_layers(again)))][::-1]
        assert all(torch.equal(one, other) for one, other in zip(forwards, backwards, strict=True)), update
    assert not torch.equal(forwards[0].abs(), saved["0.magnitude"])
    assert forwards[0].abs().max() <= math.sqrt(3) * math.sqrt(2 / 7)


def test_the_users_model_stays_as_it_is_and_shares_its_weights() -> None:
    model = Awkward()
    types = [type(module) for module in model.modules()]
    view = apply_rule(model, "fa", generator=gen())
    assert [type(module) for module in model.modules()] == types
    assert list(model.state_dict()) == list(view.state_dict())
    for mine, theirs in zip(view.parameters(), model.parameters(), strict=True):
        assert mine is theirs
    view(torch.randn(3, 4, 11, 11))
    assert torch.equal(view.layers[1].running_mean, model.layers[1].running_mean)
    assert model.layers[1].num_batches_tracked == 1


def test_feedback_draws_from_its_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, other, third = (feedback_state(apply_rule(Awkward(), "frsf", generator=gen(seed))) for seed in (1, 1, 2))
    after = torch.get_rng_state()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any(torch.equal(one[name], third[name]) for name in one)
    torch.manual_seed(0)
    for _ in range(3):
        Awkward()
    assert torch.equal(after, torch.get_rng_state())
    assert not torch.equal(before, after)


def test_mistakes_end_in_a_clear_line() -> None:
    plain = nn.Sequential(nn.Linear(2, 2))
    cases = [
        (plain, "frfs", {}, "did you mean 'frsf'"),
        (plain, "frsf", {}, "pass generator="),
        (nn.TransformerEncoderLayer(4, 2), "usf", {}, "MultiheadAttention"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), "usf", {}, "layer '0' of type ParametrizedLinear"),
        (apply_rule(plain, "usf"), "usf", {}, "already"),
        (plain, "frsf", {"state": {}}, "no '0.magnitude'"),
        (plain, "usf", {"state": {"1.magnitude": torch.ones(2, 2)}}, "'1.magnitude'"),
        (plain, "frsf", {"state": {"0.magnitude": torch.ones(3, 2)}}, r"\[3, 2\]"),
    ]
    for model, rule, arguments, message in cases:
        with pytest.raises(UserError, match=message):
            apply_rule(model, rule, **arguments)  # type: ignore[arg-type]
