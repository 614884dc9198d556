"""What provokes the promised refusals of attacks and of verdicts; see test_promises.py."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from audit_records import AUDIT, PLAIN, measured, record
from creditflow.attacks import batch, epsilons, guards, hash_judge, judge, kinds, why
from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.hash_attack import HashAttack
from creditflow.attacks.methods import apgd_dlr, apgd_targeted, transfer
from creditflow.attacks.methods.settings import apgd_dlr as apgd_dlr_settings
from creditflow.attacks.methods.settings import apgd_targeted as apgd_targeted_settings
from creditflow.attacks.methods.settings import transfer as transfer_settings
from creditflow.attacks.pyautoattack_adapter import need_classes
from creditflow.attacks.why_settings import WhySettings
from creditflow.core.errors import UserError
from creditflow.core.settings import NoSettings
from creditflow.data.prepared import Subset
from creditflow.retrieval.storage import Encoded
from creditflow.verdict import cells, statistics, verdicts
from faults.promised_data import Promised

IMAGES = Subset(torch.full((6, 1, 4, 4), 100, dtype=torch.uint8), torch.arange(6) % 2, ("a", "b"), (0.5,), (0.25,))
FLOATS = replace(IMAGES, images=torch.rand(6, 1, 4, 4))
SEVERAL = replace(IMAGES, labels=torch.ones(6, 2, dtype=torch.uint8))
CHOSEN = torch.arange(4)


class Brightness(nn.Module):
    """Logits (N, K) that grow with the mean pixel; `broken` where an image is brighter than half."""

    def __init__(self, n_classes: int = 2, broken: float = 0.0) -> None:
        super().__init__()
        self.n_classes, self.broken = n_classes, broken

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.where(mean > 0.5, self.broken, 0.0) + mean * torch.arange(1.0, self.n_classes + 1)


class Constant(nn.Module):
    """The same outputs for each image."""

    def __init__(self, *outputs: float) -> None:
        super().__init__()
        self.outputs = torch.tensor(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs.expand(len(x), -1) + 0 * x.flatten(1).sum(1, keepdim=True)


def brighter(problem: Problem, sizes: Any, settings: Any) -> Candidates:
    """An attack that stays within its bounds; it asks the model what it thinks of each proposal."""
    proposed = [problem.images + size for size in sizes]
    with torch.no_grad():
        for images in proposed:
            problem.model(images)
    return Candidates(proposed)


def too_far(problem: Problem, sizes: Any, settings: Any) -> Candidates:
    return Candidates([problem.images + 2 * size for size in sizes])


BRIGHTER = Attack(norm="linf", uses_gradient=False, propose=brighter, name="brighter")
TOO_FAR = replace(BRIGHTER, propose=too_far)
TRANSFER = replace(transfer.ATTACK, name="transfer")


def attack(
    model: nn.Module | None = None, data: Subset = IMAGES, sizes: Any = (0.2,), of: Attack = BRIGHTER, **more: Any
) -> object:
    network = model or Brightness()
    return judge.run_attack(of, NoSettings(), network, data, CHOSEN, sizes, batch_size=4, seed=0, **more)


def attack_that_foolbox_counts_otherwise() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch.foolbox, "accuracy", lambda model, images, labels: 0.25)
        return attack()


def problem(n_classes: int, *surrogates: str) -> Problem:
    images, labels = IMAGES.batch(CHOSEN)
    return Problem(Brightness(n_classes), images, labels, surrogates=dict.fromkeys(surrogates, Brightness(n_classes)))


def watched(hook: str) -> object:
    watch = guards.QueryWatch("pgd")
    with watch.watching(0.1):
        return getattr(watch, hook)(nn.Identity(), (torch.zeros(2, 1, 2, 2),), torch.full((2, 2), float("nan")))


def step_up(given: Any, size: float, settings: Any) -> Tensor:
    images: Tensor = given.images + size
    return images


def leap_up(given: Any, size: float, settings: Any) -> Tensor:
    images: Tensor = given.images + 2 * size
    return images


def hash_attack(model: nn.Module, sizes: Any = (0.2,), propose: Any = step_up) -> object:
    codes = Encoded(torch.ones(3, 2, dtype=torch.int8), torch.arange(3) % 2)
    queries = hash_judge.Queries(IMAGES, CHOSEN, codes)
    of = HashAttack(norm="linf", uses_gradient=False, propose=propose, name="up")
    return hash_judge.run_hash_attack(of, NoSettings(), model, queries, sizes, batch_size=4, seed=0)


def measure(model: nn.Module) -> object:
    return why.measure(model, model, IMAGES, CHOSEN, WhySettings(epsilon=0.1, images=4, batch_size=4, steps=(1,)))


ATTACKS: dict[str, Promised] = {
    "attacks.batch.check_bounds": (
        RuntimeError,
        [
            (lambda f: batch.check_bounds(torch.full((1, 1, 2, 2), 1.2), torch.zeros(1), 0.1), "outside [0, 1]"),
            (lambda f: batch.check_bounds(torch.zeros(1, 1, 2, 2), torch.ones(1), 0.1), "exceeded epsilon 0.1"),
        ],
    ),
    "attacks.epsilons.check_epsilons": (
        UserError,
        [
            (lambda f: epsilons.check_epsilons([]), "epsilons must be finite numbers"),
            (lambda f: epsilons.check_epsilons([float("inf")]), "epsilons must be finite numbers"),
            (lambda f: epsilons.check_epsilons([-0.1]), "of at least 0"),
            (lambda f: epsilons.check_epsilons([0.2, 0.1]), "epsilons must rise"),
            (lambda f: epsilons.check_epsilons([0.1, 0.1]), "epsilons must rise"),
        ],
    ),
    "attacks.epsilons.check_norm": (
        UserError,
        [
            (lambda f: epsilons.check_norm([8.0], "linf"), "say 8/255 as 0.03137"),
            (lambda f: epsilons.check_norm([0.5], "l0"), "counts pixels"),
        ],
    ),
    "attacks.guards.check_outputs": (
        UserError,
        [
            (lambda f: guards.check_outputs(torch.tensor([[float("nan"), 0.0]])), "train it again"),
            (lambda f: guards.check_outputs(torch.tensor([[0.3, 0.7]])), "remove its softmax"),
        ],
    ),
    "attacks.guards.check_finite": (
        UserError,
        [(lambda f: guards.check_finite(torch.tensor([[float("inf")]])), "train it again")],
    ),
    "attacks.guards.check_images": (
        UserError,
        [(lambda f: guards.check_images(torch.rand(1, 1, 2, 2)), "images must be uint8 from 0 to 255, not float32")],
    ),
    "attacks.guards.QueryWatch.hook": (
        UserError,
        [(lambda f: watched("hook"), "attack pgd, epsilon 0.1: the model's")],
    ),
    "attacks.guards.QueryWatch.surrogate_hook": (
        UserError,
        [(lambda f: watched("surrogate_hook"), "the surrogate's outputs are not finite")],
    ),
    "attacks.hash_judge.get_hash_attack": (
        UserError,
        [(lambda f: hash_judge.get_hash_attack("hagg"), "did you mean 'hag'")],
    ),
    "attacks.hash_judge.run_hash_attack": (
        (UserError, RuntimeError),
        [
            (lambda f: hash_attack(Brightness(), (0.2, 0.1)), "epsilons must rise"),
            (lambda f: hash_attack(Constant(float("nan"), 1.0)), "train it again"),
            (lambda f: hash_attack(Brightness(broken=float("nan"))), "at 4 perturbed images"),
            (lambda f: hash_attack(Brightness(), propose=leap_up), "exceeded epsilon 0.2"),
        ],
    ),
    "attacks.judge.get_attack": (UserError, [(lambda f: judge.get_attack("pgdd"), "did you mean 'pgd'")]),
    "attacks.judge.choose_images": (UserError, [(lambda f: judge.choose_images(IMAGES, 7), "lower `images`")]),
    "attacks.judge.run_attack": (
        (UserError, RuntimeError),
        [
            (lambda f: attack(data=FLOATS), "images must be uint8"),
            (lambda f: attack(sizes=(0.2, 0.1)), "epsilons must rise"),
            (lambda f: attack(Constant(0.3, 0.7)), "remove its softmax"),
            (lambda f: attack(Constant(float("inf"), 0.7)), "train it again"),
            (lambda f: attack(Brightness(broken=float("nan"))), "epsilon 0.2: the model's outputs are not finite"),
            (lambda f: attack(of=TRANSFER), "give it a surrogate"),
            (lambda f: attack(keep=9), "lower `keep`"),
            (lambda f: attack(check_convergence=True), "no steps that adapt"),
            (lambda f: attack(data=SEVERAL), "take it off this dataset"),
            (lambda f: attack(of=TOO_FAR), "exceeded epsilon 0.2"),
            (lambda f: attack(sizes=(0.9,)), "outside [0, 1]"),
            (lambda f: attack_that_foolbox_counts_otherwise(), "foolbox measures a clean accuracy of 0.25"),
        ],
    ),
    "attacks.kinds.kinds": (
        UserError,
        [
            (lambda f: kinds.kinds("pgdd", {}), "did you mean 'pgd'"),
            (lambda f: kinds.kinds("", {}), "unknown attack ''"),
        ],
    ),
    "attacks.methods.apgd_dlr.propose": (
        UserError,
        [(lambda f: apgd_dlr.propose(problem(2), [0.1], apgd_dlr_settings.Settings()), "at least 3 classes")],
    ),
    "attacks.methods.apgd_targeted.propose": (
        UserError,
        [(lambda f: apgd_targeted.propose(problem(3), [0.1], apgd_targeted_settings.Settings()), "use apgd_ce")],
    ),
    "attacks.methods.transfer.propose": (
        UserError,
        [(lambda f: transfer.propose(problem(2, "twin", "other"), [0.1], transfer_settings.Settings()), "give it one")],
    ),
    "attacks.pyautoattack_adapter.need_classes": (
        UserError,
        [(lambda f: need_classes(problem(2), 3, "fab"), "attack fab needs at least 3 classes, the model has 2")],
    ),
    "attacks.why.measure": (
        UserError,
        [
            (lambda f: measure(Constant(0.3, 0.7)), "remove its softmax"),
            (lambda f: measure(Constant(float("nan"), 0.7)), "train it again"),
        ],
    ),
}


# --- verdicts -----------------------------------------------------------------------------------------------------

RIGHT = np.ones((1, 6), dtype=bool)
PLAN = cells.plan_of(AUDIT)


def attacked(rule: str, seed: int = 0, attack: str = "pgd", **more: Any) -> Any:
    return record(rule, seed, attack, "exact", RIGHT, **more)


def clean(rule: str, seed: int = 0) -> Any:
    return record(rule, seed, "clean", "none", RIGHT)


def cell(*records: Any) -> cells.Cell:
    return cells.Cell([clean("bp"), *records], PLAN)


APART = [attacked("bp"), attacked("bp", attack="square", example=range(10, 16))]

VERDICT: dict[str, Promised] = {
    "verdict.cells.Cell.__init__": (
        UserError,
        [
            (lambda f: cell(*APART), "have no image in common; give them the same `images`"),
            (lambda f: cell(attacked("bp"), attacked("frsf", seed=1)), "give bp these seeds too"),
            (lambda f: cell(attacked("frsf")), "add it to their `rules`"),
        ],
    ),
    "verdict.cells.Cell.evidence": (
        UserError,
        [
            (lambda f: cell(attacked("bp", seed=3)).evidence("bp", [3], 0.1), "no clean record of seed 3"),
            (
                lambda f: cell(
                    clean("bp", 1), attacked("bp"), attacked("bp", 1), attacked("bp", attack="square")
                ).evidence("bp", [0, 1], 0.1),
                "run them with the same, or audit fewer",
            ),
            (
                lambda f: cell(attacked("bp")).evidence("bp", [0], 0.3),
                "run the attack at this one, too, or audit others",
            ),
        ],
    ),
    "verdict.statistics.moments": (ValueError, [(lambda f: statistics.moments(np.zeros((0, 3))), "no outcomes")]),
    "verdict.statistics.accuracy": (ValueError, [(lambda f: statistics.accuracy(np.zeros((2, 0))), "no outcomes")]),
    "verdict.statistics.difference": (
        ValueError,
        [
            (lambda f: statistics.difference(np.zeros((1, 3)), np.zeros((2, 3))), "cannot be paired"),
            (lambda f: statistics.difference(np.zeros((0, 3)), np.zeros((0, 3))), "cannot be paired"),
        ],
    ),
    "verdict.verdicts.audit": (
        UserError,
        [
            (lambda f: verdicts.audit([clean("bp"), *APART], AUDIT), "no image in common"),
            (
                lambda f: verdicts.audit(measured("bp", PLAIN, seeds=[0]) + measured("frsf", PLAIN, seeds=[1]), AUDIT),
                "cannot be paired",
            ),
        ],
    ),
}
