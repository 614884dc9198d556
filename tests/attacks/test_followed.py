"""Gradients that attacks follow are held against differences: honest ones are confirmed, and lies of all kinds not."""

import copy
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import creditflow as cf
from creditflow.attacks.batch import AttackResult
from creditflow.attacks.followed import FollowedGradients
from creditflow.attacks.foreign import view_of
from creditflow.attacks.guards import QueryWatch
from creditflow.attacks.judge import get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.unit_images import unit_images
from creditflow.instrument.wrapped import UnitRange
from creditflow.records.guards import LIMITS, fired
from known_models import BesideSteps, Scaled, attacked, honest, lying

ATTACKS: dict[str, dict[str, Any]] = {
    "pgd": {},
    "fgsm_mse": {"precision": "float64"},
    "cascade": {"apgd_scaled": {"steps": 20}, "apgd_targeted": {"steps": 5}, "square": {"queries": 5}},
}


def run(name: str, model: nn.Module, n_images: int = 60, **options: Any) -> AttackResult:
    images, labels = attacked(n_images)
    data = unit_images(images, labels, torch.device("cpu"))
    settings = parse(plugins.settings_class("attack", name), ATTACKS[name], name)
    chosen = torch.arange(len(labels))
    options = {"batch_size": 25, "seed": 3, "confirm_gradients": True} | options
    return run_attack(get_attack(name), settings, model, data, chosen, [0.05, 0.1], **options)


def unconfirmed(name: str, model: nn.Module) -> float:
    share = run(name, model).checks["unconfirmed_gradients"]
    assert isinstance(share, float)
    return share


def convolutional(activation: Callable[[], nn.Module]) -> nn.Module:
    """A deep network with random weights, whose max-pooling meets many equal numbers at black pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2)]
        for n_inputs, n_outputs in ((1, 16), (16, 32), (32, 32), (32, 32)):
            layers += [nn.Conv2d(n_inputs, n_outputs, 3, padding=1), nn.BatchNorm2d(n_outputs), activation()]
        layers += [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 16, 10)]
        model = nn.Sequential(*layers)
        model(torch.rand(200, 1, 8, 8))
    return model.eval()


class SwitchedOff(nn.Module):
    """A model with one more class, which it never predicts."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(x), torch.full((len(x), 1), -1e6)], 1)


def deep() -> nn.Module:
    """A network of 31 layers with random weights, without shortcuts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Flatten()]
        for n_inputs in (64, *[64] * 29):
            layers += [nn.Linear(n_inputs, 64), nn.BatchNorm1d(64), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(64, 10))
        model(torch.rand(200, 1, 8, 8))
    return model.eval()


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = convolutional(nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            outputs: Tensor = self.model(x)
        return outputs


class Median(nn.Module):
    """Takes the median of each 3x3 patch."""

    def forward(self, x: Tensor) -> Tensor:
        return F.unfold(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3).median(1).values.reshape(x.shape)


def unit_range(model: nn.Module) -> nn.Module:
    return UnitRange(model, (0.0, 1.0), None)


def exact(model: nn.Module) -> nn.Module:
    return view_of(model, "exact", honest=True)


HONEST: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: exact(honest()),
    "sharp": lambda: exact(Scaled(honest(), 1e4)),
    "ReLU and max-pooling": lambda: exact(convolutional(nn.ReLU)),
    "ReLU6": lambda: exact(convolutional(nn.ReLU6)),
    "tanh": lambda: exact(convolutional(nn.Tanh)),
    "clamped": lambda: exact(nn.Sequential(nn.Hardtanh(0, 1), honest())),
    "max-pooling first": lambda: exact(nn.Sequential(nn.MaxPool2d(3, 1, 1), honest())),
    "median first": lambda: exact(nn.Sequential(Median(), honest())),
    "a class that is switched off": lambda: exact(SwitchedOff(honest())),
    "bfloat16": lambda: exact(unit_range(convolutional(nn.ReLU).bfloat16())),
    "autocast": lambda: exact(unit_range(Autocast())),
    "half": lambda: exact(unit_range(copy.deepcopy(honest()).half())),
    "31 layers": lambda: exact(deep()),
    "exact view of a lie": lambda: view_of(lying(), "exact", honest=False),
    "exact view beside steps": lambda: view_of(BesideSteps(honest()), "exact", honest=False, missing="zero"),
}


@pytest.mark.parametrize(
    ("attack", "name"),
    [
        *product(["pgd"], HONEST),
        *product(["cascade"], ["ReLU", "max-pooling first", "bfloat16", "exact view of a lie"]),
    ],
)
def test_honest_gradients_are_confirmed(attack: str, name: str) -> None:
    checks = run(attack, HONEST[name]()).checks
    assert checks["unconfirmed_gradients"] <= LIMITS["unconfirmed_gradients"]
    assert checks["misleading_gradients"] <= LIMITS["misleading_gradients"]


class Lies(nn.Module):
    """The digits' network, whose gradient has the wrong sign where `where` says so of an image."""

    def __init__(self, where: Callable[[Tensor], Tensor], lie: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.where, self.lie = honest(), where, lie

    def forward(self, x: Tensor) -> Tensor:
        return self.model(torch.where(self.where(x.detach())[:, None, None, None], self.lie(x), x))


def off_grid(x: Tensor) -> Tensor:
    """Images that no data has: their pixels are no multiples of 1/16."""
    return ((16 * x - (16 * x).round()).abs() > 1e-3).flatten(1).any(1)


def beyond(x: Tensor, distance: float) -> Tensor:
    """Images that have been moved by more than this somewhere; the data's pixels are multiples of 1/16."""
    return ((16 * x - (16 * x).round()).abs() > 16 * distance).flatten(1).any(1)


def far(x: Tensor) -> Tensor:
    """Images that have been moved by more than 0.02 somewhere."""
    return beyond(x, 0.02)


def some(x: Tensor) -> Tensor:
    """About a third of the images, by what is in their middle, near enough the same for all images near them."""
    return x[:, 0, 3, 3] > 0.6


PLACES = {"off the grid": off_grid, "far": far, "some": some}


def masked(x: Tensor) -> Tensor:
    """The images, of which the gradient sees two columns."""
    return torch.cat([x[..., :2], x[..., 2:].detach()], dim=3)


TALES: dict[str, Callable[[Tensor], Tensor]] = {
    "wrong sign": lambda x: 2 * x.detach() - x,
    "no gradient": lambda x: x.detach(),
    "a part of it": masked,
    "another order": lambda x: x.detach() + (x - x.detach()).flip(2),
    "much smaller": lambda x: x.detach() + 1e-3 * (x - x.detach()),
}


@pytest.mark.parametrize(("place", "tale"), [*product(["far", "some"], TALES), ("off the grid", "wrong sign")])
def test_lies_are_found_wherever_they_are_told(place: str, tale: str) -> None:
    model = Lies(PLACES[place], TALES[tale])
    for attack in ("pgd", "cascade") if tale == "no gradient" else ("pgd",):
        result = run(attack, model)
        assert "unconfirmed_gradients" in fired(result.checks), (attack, result.checks["unconfirmed_gradients"])


def test_own_gradients_of_a_lying_layer_and_other_outputs_in_a_graph_are_found() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            outputs: Tensor = honest()(x)
            return outputs + outputs.detach().flip(1) if torch.is_grad_enabled() else outputs

    assert unconfirmed("pgd", lying()) > 0.3
    assert unconfirmed("pgd", Two()) == 1


@pytest.mark.parametrize("attack", ["pgd", "fgsm_mse", "cascade"])
def test_nothing_else_depends_on_the_check(attack: str) -> None:
    noisy = nn.Sequential(nn.Dropout(0.2), honest())
    for model in (honest(), noisy):
        with_check, without = run(attack, model), run(attack, model, confirm_gradients=False)
        assert torch.equal(with_check.correct, without.correct)
        assert torch.equal(with_check.perturbation, without.perturbation)
        assert with_check.queries_per_image == without.queries_per_image
        shares = {"unconfirmed_gradients": 0.0, "misleading_gradients": 0.0}
        assert {**without.checks, **shares} == with_check.checks


def test_a_gradient_of_the_same_images_through_another_model_is_no_part_of_this_one() -> None:
    """An ensemble attack adds the gradients of two models at the same images."""
    images, _ = attacked(20)
    followed = FollowedGradients(QueryWatch("ensemble"), "linf", 0.1)
    with followed.watching(honest(0)):
        x = images.clone().requires_grad_()
        (honest(0)(x).sin().sum() + 5 * honest(1)(x).sin().sum()).backward()
    assert followed.unconfirmed == followed.misleading == {(0, 1): 0}


class Wavy(nn.Module):
    """A model on pixels with waves: its gradient is true, and leads nowhere."""

    def __init__(self, model: nn.Module, length: float, height: float) -> None:
        super().__init__()
        self.model, self.length, self.height = model, length, height

    def forward(self, x: Tensor) -> Tensor:
        frequency = 2 * torch.pi / self.length
        outputs: Tensor = self.model(x - self.height * torch.sin(frequency * x) / frequency)
        return outputs


@pytest.mark.parametrize("attack", ["pgd", "cascade"])
def test_a_true_gradient_that_leads_nowhere_is_found(attack: str) -> None:
    checks = run(attack, exact(Wavy(honest(), 1 / 397, 2))).checks
    assert checks["unconfirmed_gradients"] <= LIMITS["unconfirmed_gradients"]
    assert "misleading_gradients" in fired(checks)


def test_a_precision_of_the_attacks_own_is_that_of_the_check() -> None:
    for model in (honest(), view_of(lying(), "exact", honest=False)):
        checks = run("fgsm_mse", model).checks
        assert checks["unconfirmed_gradients"] == 0 and checks["zero_gradients"] == 0


@pytest.mark.parametrize("place", ["far", "some"])
def test_the_audit_of_a_liar_is_not_sound_and_says_why(place: str) -> None:
    """The eight images that `check_gradient` looks at are not lied about."""
    images, labels = attacked(60)
    order = some(images).int().argsort(stable=True)
    models = {"mine": Lies(PLACES[place], TALES["wrong sign"]).eval(), "reference": honest()}
    result = cf.audit(models, images[order], labels[order], epsilons=[0.1], budget="quick", progress=False)
    table = result.table.set_index("model")
    assert table.gradient["mine"] == "honest"
    assert not table.sound["mine"] and "unconfirmed gradients" in table.reason["mine"]
    assert table.net_effect["mine"] == "unresolved" and table.claim_verdict["mine"] != "holds"


def test_a_lie_at_the_last_epsilon_alone_is_found() -> None:
    images, labels = attacked(60)
    model = Lies(lambda x: beyond(x, 0.03), TALES["wrong sign"]).eval()
    for epsilons in ([0.1], [0.01, 0.02, 0.1]):
        table = cf.audit(model, images, labels, epsilons=epsilons, budget="quick", progress=False).table
        assert table.gradient.iloc[-1] == "honest" and "unconfirmed gradients" in table.reason.iloc[-1]


class Clipped(nn.Module):
    """A model that takes dark pixels for black and light ones for white, so that most pixels have no gradient."""

    def __init__(self, model: nn.Module, share: float) -> None:
        super().__init__()
        self.model, self.share = model, share

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x.clamp(self.share, 1 - self.share))
        return outputs


@pytest.mark.parametrize(
    "model", [Clipped(honest(1), 0.005), Wavy(honest(1), 0.05, 1.1), Wavy(honest(1), 0.04, 1.5)], ids=str
)
def test_the_worst_case_of_a_model_that_hides_its_slope_is_that_of_the_model_behind(
    model: nn.Module,
) -> None:
    """It is so by the stage with a smoothed gradient: there is no other model to transfer images from."""
    images, labels = attacked(60)
    worst = [
        float(cf.audit(each.eval(), images, labels, epsilons=[0.1], progress=False).table.worst.iloc[0])
        for each in (model, honest(1))
    ]
    assert worst[0] <= worst[1] + 0.1


@pytest.mark.parametrize("front", [nn.ReLU(), nn.Hardtanh(0, 1)])
def test_a_layer_in_front_that_changes_no_image_changes_no_number(front: nn.Module) -> None:
    """The slope that autograd gives such a layer at black and white pixels is zero."""
    images, labels = attacked(60)
    models = {"plain": honest(1), "behind": nn.Sequential(front, honest(1)), "reference": honest()}
    table = cf.audit(models, images, labels, epsilons=[0.1], budget="quick", progress=False).table.set_index("model")
    assert table.worst["plain"] == table.worst["behind"] < 0.9
    assert table["accuracy pgd exact"]["plain"] == table["accuracy pgd exact"]["behind"]
