"""Feedback rules against autograd, an independent float64 computation, and their definitions."""

import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from creditflow import apply_rule, feedback_state
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.apply import feedback_layers, get_rule
from creditflow.feedback.draws import fill_uniform
from creditflow.feedback.layers import _SMALL_KERNELS
from creditflow.feedback.rule import Rule
from creditflow.training.loop import TrainingSettings, train
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
    for mine, theirs in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-10, atol=1e-12)


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
        "creditflow.feedback.layers._BLOCK", {"cpu": 2 * linear.weight[0].nbytes}
    )  # of two rows, or as many as the error has
    x, error = torch.randn(4, *positions, 5).double().requires_grad_(), torch.randn(4, *positions, 29).double()
    (ours,) = torch.autograd.grad(view(x), x, error)
    torch.testing.assert_close(ours, error @ view[0].feedback_weight())
    assert (view[0].feedback_weight()[3] == 0).all()


def test_half_precision_loses_no_more_in_blocks_than_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    view = apply_rule(nn.Sequential(nn.Linear(64, 512)), "frsf", generator=gen())
    monkeypatch.setattr("creditflow.feedback.layers._BLOCK", {"cpu": 0})
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


@pytest.mark.parametrize("weight", [torch.empty(7, 5), torch.empty(30, 20, 3, 3)], ids=["linear", "conv"])
def test_magnitudes_have_glorots_scale(weight: torch.Tensor) -> None:
    torch.manual_seed(0)
    weight = torch.randn_like(weight)
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    sigma = math.sqrt(2 / (fan_in + fan_out))
    uniform = get_rule("usf")
    torch.testing.assert_close(
        uniform.feedback_weight(weight, uniform.initial_state(weight, None)), sigma * weight.sign()
    )
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
def test_brsf_redraws_once_per_update_and_never_while_looking(
    kind: type[torch.optim.Optimizer], options: dict[str, bool]
) -> None:
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


EDITS = {
    "one bit": lambda w: w[0, 0].copy_(torch.nextafter(w[0, 0], torch.tensor(9.0))),
    "last element": lambda w: w[-1, -1].add_(0.01),
    "two signs": lambda w: w[0, 1::2][:2].neg_(),
    "all signs": lambda w: w.neg_(),
    "exchange": lambda w: w[:2].copy_(w[:2].flip(0)),
    "opposite steps": lambda w: w.add_(torch.tensor([[0.25], [-0.25]]).repeat(len(w), 1)[: len(w)]),
}


@pytest.mark.parametrize("size", [(4, 3), (301, 303), (2, 300_000)], ids=["copied", "summed", "in parts"])
@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("data", [False, True], ids=["no_grad", "data"])
def test_brsf_notices_every_edit_and_nothing_else(edit: str, size: tuple[int, int], data: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size[1], size[0]))
    layer = apply_rule(model, "brsf", generator=gen())[0]
    before = layer.feedback_weight().abs()
    model.load_state_dict(model.state_dict())  # the same values again
    assert torch.equal(layer.feedback_weight().abs(), before)
    with torch.no_grad():
        EDITS[edit](model[0].weight.data if data else model[0].weight)
    assert not torch.equal(layer.feedback_weight().abs(), before)
    assert layer.state["updates"] == 1


def test_brsf_refuses_a_backward_whose_magnitudes_were_redrawn() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    view, x = apply_rule(model, "brsf", generator=gen()), torch.randn(5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)  # goes past version counters
    view(x).sum().backward()
    stale = view(x).sum()
    optimizer.step()
    view(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_redrawn_magnitudes_are_uniform_and_independent(dtype: torch.dtype) -> None:
    shape, draws = (700, 1001), []
    for key in [(3, 1), (3, 2), (4, 1)]:
        drawn = torch.zeros(shape, dtype=dtype)
        fill_uniform(drawn, 2.0, *key)
        draws.append(drawn.double().flatten().numpy())
    for drawn in draws:
        assert drawn.min() >= 0
        assert drawn.max() <= 2
        assert scipy.stats.kstest(drawn / 2, "uniform").statistic < (0.003 if dtype.itemsize > 2 else 0.01)
    pairs = [(draws[0], draws[1]), (draws[0], draws[2]), *((draws[0][lag:], draws[0][:-lag]) for lag in (1, 2, 1001))]
    for one, other in pairs:
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / math.sqrt(len(one))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(7, 9), (800, 1001)], ids=["small", "large"])
def test_redrawn_magnitudes_depend_on_neither_threads_nor_blocks(
    shape: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, threads = [], torch.get_num_threads()
    try:
        for n_threads, words, small in [(1, 2**18, 2**18), (2, 2**18, 0), (2, 1000, 2**30)]:
            torch.set_num_threads(n_threads)
            monkeypatch.setattr("creditflow.feedback.draws._WORDS", {"cpu": words})
            monkeypatch.setattr("creditflow.feedback.draws._SMALL", small)
            drawn.append(torch.zeros(shape, dtype=dtype))
            fill_uniform(drawn[-1], 1.0, 5, 6)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("rule", ["frsf", "brsf"])
def test_memory_formats_change_no_first_draw(rule: str) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(4, 6, 3))
    last = nn.Sequential(nn.Conv2d(4, 6, 3)).to(memory_format=torch.channels_last)
    last.load_state_dict(plain.state_dict())
    views = [apply_rule(model, rule, generator=gen()) for model in (plain, last)]
    assert torch.equal(*(view[0].feedback_weight() for view in views))
    assert views[1][0].state["magnitude"].is_contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        last[0].weight.add_(1)
    redrawn = not torch.equal(*(view[0].feedback_weight().abs() for view in views))
    assert redrawn == (rule == "brsf")


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
        for one, other in zip(exact, ours, strict=True):
            torch.testing.assert_close(one, other)


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
    assert saved["0.updates"] == 0  # a redraw leaves the saved tensors alone
    assert torch.equal(feedback_state(apply_rule(model, "brsf", generator=gen()))["0.magnitude"], saved["0.magnitude"])
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


# --- feedback weights that learn ---------------------------------------------------------------------------------


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
        return [float(torch.cosine_similarity(ours, theirs, 0)) for ours, theirs in pairs]

    assert max(map(abs, cosines())) < 0.5
    for index in range(300):
        with torch.no_grad():
            for parameter in net.parameters():  # a slow random walk
                parameter.add_(0.001 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
        view(torch.zeros(1, 2, 5, 5))
    assert min(cosines()) > 0.9
