"""How large V is: fans of a group in grouped convolutions, and V with the norm of W, through copies, files and time."""

import copy
import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from creditflow import apply_rule, feedback_state, load_feedback, save_model
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.apply import feedback_layers, get_rule
from creditflow.feedback.rule import Rule
from creditflow.feedback.scaling import feedback_norms
from helpers import small_model

RULES = plugins.names("rule")
RULED = [name for name in RULES if not get_rule(name).exact]
#: Rules whose V has the shape of W, and so its groups.
GROUPED = [name for name in RULED if not get_rule(name).direct]


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net() -> nn.Sequential:
    """A depthwise, a grouped and a plain convolution, and a Linear; inputs (N, 4, 6, 6), outputs (N, 3)."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=4, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, groups=2),
        nn.Tanh(),
        nn.Conv2d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(80, 3),
    )
    with torch.no_grad():
        for layer, factor in zip((model[0], model[2], model[4], model[6]), (5.0, 0.1, 2.0, 1.0), strict=True):
            layer.weight.mul_(factor)
    return model


def norms(view: nn.Module) -> list[float]:
    return [float(layer.feedback_weight().norm()) for _, layer in feedback_layers(view)]


def weight_norms(model: nn.Module) -> list[float]:
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return [float(layer.weight.detach().norm()) for layer in layers]


def step(model: nn.Module, factor: float = 0.5) -> None:
    """Changes every weight; all keep their signs."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)


# --- fans of a group ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", GROUPED)
@pytest.mark.parametrize(("channels", "outputs", "groups"), [(48, 48, 48), (24, 48, 24), (12, 24, 3)])
def test_a_group_has_the_deviation_of_a_layer_of_its_own(rule: str, channels: int, outputs: int, groups: int) -> None:
    torch.manual_seed(0)
    layer, one_group = (
        nn.Conv2d(channels, outputs, 3, groups=groups),
        nn.Conv2d(channels // groups, outputs // groups, 3),
    )
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(one_group.weight)
    sigma = math.sqrt(2 / (fan_in + fan_out))
    drawn = torch.stack([v_of(rule, layer, seed) for seed in range(20)])
    assert drawn.square().mean().sqrt().item() == pytest.approx(sigma, rel=0.03)
    if rule == "usf":
        assert torch.equal(drawn[0], torch.tensor(sigma) * layer.weight.detach().sign())
    else:
        assert sigma * math.sqrt(3) * 0.97 < float(drawn.abs().max()) <= sigma * math.sqrt(3) * (1 + 1e-6)


def v_of(rule: str, layer: nn.Conv2d, seed: int, updates: int = 0) -> Tensor:
    """Returns V of a convolution after some updates of its weights, which leave their signs."""
    view = apply_rule(nn.Sequential(copy.deepcopy(layer)), rule, generator=gen(seed))
    for _ in range(updates):
        step(view, 0.9)
        view[0].feedback_weight()
    return view[0].feedback_weight()


@pytest.mark.parametrize(("rule", "updates"), [("usf", 0), ("frsf", 0), ("brsf", 0), ("brsf", 2), ("fa", 0)])
def test_a_grouped_convolution_is_distributed_as_its_groups_are(rule: str, updates: int) -> None:
    torch.manual_seed(0)
    grouped = nn.Conv2d(8, 16, 3, groups=4)
    parts = [nn.Conv2d(2, 4, 3) for _ in range(4)]
    for part, weight in zip(parts, grouped.weight.detach().chunk(4), strict=True):
        part.weight.data.copy_(weight)
    whole = torch.cat([v_of(rule, grouped, seed, updates).flatten() for seed in range(12)])
    apart = torch.cat(
        [v_of(rule, part, 100 + 4 * seed + n, updates).flatten() for seed in range(12) for n, part in enumerate(parts)]
    )
    assert len(whole) == len(apart)
    if rule == "usf":
        assert torch.equal(whole, apart)
    else:
        assert scipy.stats.ks_2samp(whole.numpy(), apart.numpy()).statistic < 1.95 * math.sqrt(2 / len(whole))


def test_layers_without_groups_are_what_they_were() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Flatten(), nn.Linear(20, 4))
    for rule, name in (("fa", "feedback_weight"), ("frsf", "magnitude"), ("brsf", "magnitude")):
        state, generator = feedback_state(apply_rule(model, rule, generator=gen())), gen()
        for place, shape, fans in (("0", (5, 3, 3, 3), (3 + 5) * 9), ("2", (4, 20), 24)):
            uniform = 2 * torch.rand(shape, generator=generator) - 1
            if rule == "brsf":
                torch.randint(2**62, (), generator=generator)
            expected = uniform * (math.sqrt(3.0) * math.sqrt(2.0 / fans))
            assert torch.equal(state[f"{place}.{name}"], expected if rule == "fa" else expected.abs())
        more = {"0.seed", "0.updates", "2.seed", "2.updates"} if rule == "brsf" else set()
        assert state.keys() == {f"0.{name}", f"2.{name}"} | more


def test_groups_do_not_divide_the_b_of_a_direct_rule() -> None:
    grouped, whole = (nn.Sequential(nn.Conv2d(4, 6, 3, groups=n), nn.Flatten()) for n in (2, 1))
    states = [feedback_state(apply_rule(model, "dfa", generator=gen(), outputs=3)) for model in (grouped, whole)]
    assert torch.equal(states[0]["0.feedback_weight"], states[1]["0.feedback_weight"])


# --- the norm of W ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULED)
@pytest.mark.parametrize("zeros", [False, True])
def test_v_has_the_norm_of_w(rule: str, zeros: bool) -> None:
    model = net()
    if zeros:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.view(-1)[::3] = 0
    view = apply_rule(model, rule, generator=gen(), scale="norm")
    assert norms(view) == pytest.approx(weight_norms(model), rel=1e-6)
    if not get_rule(rule).direct:  # beside the norm, V is what it is without
        plain = apply_rule(model, rule, generator=gen())
        for (_, ours), (_, other) in zip(feedback_layers(view), feedback_layers(plain), strict=True):
            pair = ours.feedback_weight().flatten(), other.feedback_weight().flatten()
            assert float(torch.cosine_similarity(*pair, dim=0)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf", "fa", "dfa"])
def test_the_norm_stays_that_of_the_start(rule: str) -> None:
    model = net()
    start = weight_norms(model)
    view = apply_rule(model, rule, generator=gen(), scale="norm")
    for _ in range(2):
        step(model, 3.0)
        assert norms(view) == pytest.approx(start, rel=1e-6)
    step(model, -1.0)
    assert norms(view) == pytest.approx(start, rel=1e-6)


def saved(view: nn.Module, model: nn.Module, folder: Path) -> nn.Module:
    rule = next(layer.rule for _, layer in feedback_layers(view))
    name = next(name for name in RULED if get_rule(name) is rule)
    save_model(folder / "model", model, rule=name, feedback=feedback_state(view))
    loaded_rule, state = load_feedback(folder / "model")
    return apply_rule(model, loaded_rule, state=state)


def through_torch_save(view: nn.Module, model: nn.Module, folder: Path) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(view, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module, nn.Module, Path], nn.Module]] = {
    "save_model": saved,
    "state": lambda view, model, folder: apply_rule(model, "brsf", state=feedback_state(view)),
    "deepcopy": lambda view, model, folder: copy.deepcopy(view),
    "pickle": through_torch_save,
    "moved": lambda view, model, folder: copy.deepcopy(view).double().float(),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_rule_that_draws_again_keeps_its_norm_in_every_copy(how: str, tmp_path: Path) -> None:
    model = small_model()
    start = weight_norms(model)
    view = apply_rule(model, "brsf", generator=gen(), scale="norm")
    step(model)
    view(torch.zeros(2, *model.spec.image_shape))
    other = COPIES[how](view, model, tmp_path)
    step(model, 3.0)
    if how in ("deepcopy", "pickle", "moved"):  # these have weights of their own
        step(other, 3.0)
    assert norms(other) == pytest.approx(start, rel=1e-6)
    for (_, ours), (_, expected) in zip(feedback_layers(other), feedback_layers(view), strict=True):
        assert torch.equal(ours.feedback_weight(), expected.feedback_weight())
    assert list(feedback_norms(feedback_state(other)).values()) == pytest.approx(start, rel=1e-6)


def test_other_draws_have_the_norms_that_a_state_remembers() -> None:
    model = net()
    start = weight_norms(model)
    state = feedback_state(apply_rule(model, "brsf", generator=gen(), scale="norm"))
    step(model, 7.0)
    other = apply_rule(model, "brsf", generator=gen(1), scale=feedback_norms(state))
    assert norms(other) == pytest.approx(start, rel=1e-6)
    assert feedback_norms(feedback_state(apply_rule(model, "brsf", generator=gen()))) == {}


def test_backpropagation_has_the_norm_of_w_under_either_scale() -> None:
    model, x = net(), torch.randn(2, 4, 6, 6, generator=gen())
    assert torch.equal(apply_rule(model, "bp", scale="norm")(x), model(x))


OWN = Rule(feedback_weight=lambda weight, state: weight.sign())


@pytest.mark.parametrize(
    ("rule", "scale", "message"),
    [
        ("frsf", "norms", r"^unknown scale 'norms'; did you mean 'norm'\?$"),
        ("bp", None, r"^unknown scale None; choose from: sigma, norm$"),
        (
            "frsf",
            {"0": "large"},
            r"^a scale that is a mapping gives the norm of V, a number, by the name of the layer$",
        ),
        ("fa", {"0": -1.0, "2": 1.0}, r"^the scale of the layer '0' is -1; give a norm above zero that is finite$"),
        (
            "usf",
            {"0": 1.0, "2": math.nan},
            r"^the scale of the layer '2' is nan; give a norm above zero that is finite$",
        ),
        ("frsf", {"0": 1.0, "2": True}, r"^a scale that is a mapping gives the norm of V, a number, by the name"),
        ("brsf", {"0": 1.0, "2": 1.0, "22": 1.0}, r"^the scale has a norm for '22'; did you mean '2'\?$"),
        ("frsf", {"0": 1.0}, r"^the scale has no norm for the layer '2'; give one for each layer$"),
        (OWN, "norm", r"^this rule gives its feedback weights their size itself, .* leave scale out$"),
    ],
)
def test_a_scale_that_cannot_be_is_one_line(rule: str | Rule, scale: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        apply_rule(net(), rule, generator=gen(), scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULED)
@pytest.mark.parametrize(("value", "words"), [(0.0, "all zero"), (math.nan, "not finite")])
def test_weights_without_a_norm_are_one_line(rule: str, value: float, words: str) -> None:
    model = net()
    model[2].weight.data.fill_(value)
    apply_rule(model, rule, generator=gen())
    with pytest.raises(UserError, match=rf"^V cannot have the norm of W in the layer '2', whose weights are {words};"):
        apply_rule(model, rule, generator=gen(), scale="norm")


@pytest.mark.parametrize("rule", RULED)
def test_weights_that_become_zero_have_no_feedback_or_keep_theirs_and_nothing_breaks(rule: str) -> None:
    model = net()
    view = apply_rule(model, rule, generator=gen(), scale="norm")
    images = torch.rand(3, 4, 6, 6)
    for weights in (model[2].weight, model[0].weight):
        with torch.no_grad():
            weights.zero_()
        view(images).square().sum().backward()
        drawn = [layer.feedback_weight() for _, layer in feedback_layers(view)]
        assert all(bool(tensor.isfinite().all()) for tensor in drawn)


@pytest.mark.parametrize("rule", ["usf", "frsf", "brsf"])
def test_a_norm_that_is_stated_for_weights_of_zero_gives_no_feedback(rule: str) -> None:
    model = net()
    model[2].weight.data.zero_()
    names = [name for name, _ in feedback_layers(apply_rule(model, rule, generator=gen()))]
    view = apply_rule(model, rule, generator=gen(), scale=dict.fromkeys(names, 2.0))
    norms = {name: float(layer.feedback_weight().norm()) for name, layer in feedback_layers(view)}
    assert norms == pytest.approx({name: 0.0 if name == "2" else 2.0 for name in names}, rel=1e-5)
