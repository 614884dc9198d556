"""Random feedback: its scale and distribution, when it is drawn again, and what it does not depend on."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from creditflow import apply_rule, feedback_state
from creditflow.feedback.apply import feedback_layers, get_rule
from creditflow.feedback.draws import fill_uniform
from helpers import Awkward


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    for left, right in pairs:
        assert abs(np.corrcoef(left, right)[0, 1]) < 4 / math.sqrt(len(left))


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
        assert all(map(torch.equal, forwards, backwards)), update
    assert not torch.equal(forwards[0].abs(), saved["0.magnitude"])
    assert saved["0.updates"] == 0  # a redraw leaves the saved tensors alone
    assert torch.equal(feedback_state(apply_rule(model, "brsf", generator=gen()))["0.magnitude"], saved["0.magnitude"])
    assert forwards[0].abs().max() <= math.sqrt(3) * math.sqrt(2 / 7)


def test_feedback_draws_from_its_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, same, other = (feedback_state(apply_rule(Awkward(), "frsf", generator=gen(seed))) for seed in (1, 1, 2))
    after = torch.get_rng_state()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    torch.manual_seed(0)
    for _ in range(3):
        Awkward()
    assert torch.equal(after, torch.get_rng_state())
    assert not torch.equal(before, after)
