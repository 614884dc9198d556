"""What an audit spends: the attacks that run on a model of each kind, and their settings, in three tiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from creditflow.core import plugins
from creditflow.core.errors import UserError, suggestion
from creditflow.core.settings import SettingsModel, parse

#: Cost of a forward and a backward pass, in forward passes.
BACKWARD = 2.5

#: The attack on which a claim of robustness rests.
CLAIM = "pgd"


@dataclass(frozen=True)
class Budget:
    """A tier.

    Attributes:
        name: its name.
        claim: settings of PGD, on which a claim rests.
        scaled: steps of APGD on scaled logits.
        targeted: steps of targeted APGD for each target.
        targets: number of its targets; 0 leaves it out.
        smoothed: settings of PGD on a smoothed gradient.
        queries: queries of the Square Attack for each image.
        transfer: settings of the transfer from each other model.
        sources: the most models that images are transferred from.
        own: steps of APGD through the own gradient of a model that has an exact one, too.
        convergence_images: at how many images that stand twice the steps are tried; None for all.
    """

    name: str
    claim: Mapping[str, Any]
    scaled: int
    targeted: int
    targets: int
    smoothed: Mapping[str, Any]
    queries: int
    transfer: Mapping[str, Any]
    sources: int
    own: int
    convergence_images: int | None


#: The sign-symmetry paper's PGD: five steps of epsilon / 3 from the image itself.
_PGD = {"steps": 5, "relative_step": 1 / 3, "random_start": False}
_TRANSFER = {"steps": 5, "relative_step": 0.25, "random_start": False}
_STRONG = {"steps": 20, "relative_step": 0.1, "random_start": False}


def _smoothed(steps: int, points: int, step: float) -> dict[str, Any]:
    return {"steps": steps, "points": points, "relative_step": step}


#: The tiers. `strong` has the settings of the attacks' authors (AutoAttack). The smoothed stage
#: has few steps in the others, as the guards of followed gradients look for the same thing.
BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("quick", _PGD, 10, 0, 0, _smoothed(6, 4, 0.25), 10, _TRANSFER, 1, 5, 20),
        Budget("default", _PGD, 20, 0, 0, _smoothed(10, 4, 0.2), 25, _TRANSFER, 2, 10, 30),
        Budget("strong", _STRONG, 100, 100, 9, _smoothed(20, 8, 0.1), 5000, _STRONG, 3, 100, None),
    )
}


@dataclass(frozen=True)
class Job:
    """An attack on a network.

    Attributes:
        attack: its id.
        gradient: what the attacker differentiates.
        settings: the attack's settings.
        checks_convergence: whether twice the steps are tried on a part.
        keeps: whether the adversarial images are kept.
        cost: the most that it costs for an image and an epsilon, in forward passes.
    """

    attack: str
    gradient: str
    settings: SettingsModel
    checks_convergence: bool
    keeps: bool
    cost: float


def get_budget(name: str) -> Budget:
    """Returns the tier of a name. Raises UserError for an unknown one."""
    if name not in BUDGETS:
        raise UserError(f"unknown budget {name!r}{suggestion(str(name), list(BUDGETS))}")
    return BUDGETS[name]


def check_gradients(gradients: Sequence[str]) -> tuple[str, ...]:
    """Returns the gradients that an attacker may use. Raises UserError for unknown ones."""
    names = (gradients,) if isinstance(gradients, str) else tuple(gradients)
    for name in names:
        if name not in ("exact", "own"):
            raise UserError(f"unknown gradient {name!r}{suggestion(str(name), ['exact', 'own'])}")
    if not names:
        raise UserError("name at least one gradient: exact, own, or both")
    return names


def jobs(budget: Budget, verdict: str, gradients: Sequence[str], n_classes: int, has_sources: bool) -> list[Job]:
    """Returns the attacks on a network, in their order.

    Args:
        budget: the tier.
        verdict: what its gradient is worth: "honest", "surrogate" or "no useful gradient".
        gradients: what the attacker may differentiate, some of "exact" and "own".
        n_classes: number of its outputs.
        has_sources: whether there are models to transfer images from.
    """
    ascents, rest = _ascents(budget, n_classes), _without_gradient(budget, has_sources)
    if verdict == "no useful gradient":
        return [_claim(budget, "own"), _cascade(budget, "own", ascents), _cascade(budget, "none", rest)]
    if verdict == "honest":  # its own gradient is the exact one
        return [_claim(budget, "exact"), _cascade(budget, "exact", ascents | rest)]
    chosen = [_claim(budget, gradient) for gradient in ("own", "exact") if gradient in gradients]
    if "own" in gradients:
        settings = {"steps": budget.own}
        chosen.append(_job("apgd_scaled", "own", settings, cost=BACKWARD * budget.own))
    if "exact" in gradients:
        return [*chosen, _cascade(budget, "exact", ascents | rest)]
    return [*chosen, _cascade(budget, "none", rest)]


def _ascents(budget: Budget, n_classes: int) -> dict[str, Any]:
    """Returns the cascade's stages that follow a gradient; the targeted one needs four classes."""
    stages: dict[str, Any] = {"apgd_scaled": {"steps": budget.scaled}, "pgd_smoothed": dict(budget.smoothed)}
    if not budget.targets:
        return stages
    if n_classes >= 4:
        return stages | {"apgd_targeted": {"steps": budget.targeted, "targets": min(budget.targets, n_classes - 1)}}
    return stages | {"apgd_ce": {"steps": budget.targeted * budget.targets}}


def _without_gradient(budget: Budget, has_sources: bool) -> dict[str, Any]:
    square: dict[str, Any] = {"square": {"queries": budget.queries}}
    return square | ({"transfer": dict(budget.transfer), "transfer_last": True} if has_sources else {})


def _claim(budget: Budget, gradient: str) -> Job:
    return _job(CLAIM, gradient, dict(budget.claim), cost=BACKWARD * budget.claim["steps"])


def _cascade(budget: Budget, gradient: str, stages: Mapping[str, Any]) -> Job:
    cost = sum(BACKWARD * _steps(stage) for stage in stages.values() if isinstance(stage, Mapping))
    cost += stages.get("square", {}).get("queries", 0)
    return _job("cascade", gradient, stages, cost=cost, converges=gradient != "none", keeps=True)


def _steps(stage: Mapping[str, Any]) -> int:
    """Returns how many steps with a gradient a stage takes at most."""
    return int(stage.get("steps", 0) * stage.get("targets", 1) * stage.get("points", 1))


def _job(
    attack: str,
    gradient: str,
    settings: Mapping[str, Any],
    *,
    cost: float,
    converges: bool = False,
    keeps: bool = False,
) -> Job:
    parsed = parse(plugins.settings_class("attack", attack), settings, f"settings of attack {attack}")
    return Job(attack, gradient, parsed, converges, keeps, cost)
