"""Small networks whose robustness is known, and what the attacks of an experiment's audit find of them.

The images are those of Tsipras et al., "Robustness may be at odds with accuracy" (2019): a bright block that is seen
from afar and right for most images, and many faint pixels that together are right for all of them. A network that is
trained plainly relies on the faint pixels, which a small perturbation turns round; one that is trained adversarially
relies on the block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from audit_records import record, relabelled
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.prepared import Subset
from creditflow.feedback.apply import apply_rule, get_rule
from creditflow.records.record import Record
from creditflow.workflow.experiments import Experiment

EPSILON = 0.045
N_CLASSES = 4
_SIDE = 8


def images_of_blocks_and_faint_pixels(n: int, seed: int) -> Subset:
    """Images (n, 1, 8, 8) of four classes: a block of the first two rows is bright, other pixels tell faintly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % N_CLASSES
    told = torch.where(torch.rand(n, generator=generator) < 0.85, labels, (labels + 1) % N_CLASSES)
    x = 0.5 + 0.05 * torch.randn(n, _SIDE, _SIDE, generator=generator)
    x[:, :2] -= 0.2
    for block in range(N_CLASSES):
        x[told == block, :2, 2 * block : 2 * block + 2] += 0.4
    signs = torch.randn(N_CLASSES, _SIDE - 2, _SIDE, generator=torch.Generator().manual_seed(0)).sign()
    x[:, 2:] += 0.05 * signs[labels]
    images = (255 * x.clamp(0, 1)).round().to(torch.uint8)[:, None]
    return Subset(images, labels, tuple("abcd"), (0.5,), (0.25,))


def trained(seed: int, *, adversarially: bool = False) -> nn.Module:
    """A network of one hidden layer, after some passes over 300 images or over what one large step makes of them."""
    data = images_of_blocks_and_faint_pixels(300, 100)
    x, labels = to_unit_interval(data.images), data.labels
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = nn.Linear(_SIDE * _SIDE, 32), nn.Linear(32, N_CLASSES)
    model = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    for _ in range(40):
        seen = _worse(model, x, labels) if adversarially else x
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(seen - 0.5), labels).backward()
        optimiser.step()
    return Centred(model).eval()


def _worse(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    moved = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(moved - 0.5), labels), moved)
    return (x + 2 * EPSILON * slope.sign()).clamp(0, 1).detach()


class Centred(nn.Module):
    """A network that sees images without their mean grey."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.inner(x - 0.5)
        return output


class Straight(torch.autograd.Function):
    """Passes images through, and back only what `tamper` makes of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tamper: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.tamper = tamper
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return ctx.tamper(gradient), None


class Changed(nn.Module):
    """A network with another backward pass, other logits, or noise of some standard deviation on them."""

    def __init__(
        self, inner: nn.Module, *, tamper: Callable[[Tensor], Tensor] = torch.clone, scale: float = 1, noise: float = 0
    ) -> None:
        super().__init__()
        self.inner, self.tamper, self.scale, self.noise = inner, tamper, scale, noise

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.scale * self.inner(Straight.apply(x, self.tamper))
        return output + self.noise * torch.randn_like(output) if self.noise else output


@dataclass(frozen=True)
class Job:
    """An attack through a gradient, with the settings of an experiment at a small budget."""

    attack: str
    gradient: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class AttackSet:
    """What an experiment's audit runs on the networks of a rule, and on backpropagation's.

    Attributes:
        audit: the experiment's `audit` keys, at this file's epsilon.
        of_rule, of_reference: the attacks on each.
        feedback: the rule, whose feedback weights the attacker uses where there is such a gradient.
    """

    audit: Mapping[str, Any]
    of_rule: Sequence[Job]
    of_reference: Sequence[Job]
    feedback: str


def attack_set(experiment: Experiment) -> AttackSet:
    """The attacks of an experiment's audit on backpropagation, and on the rule that most of them attack."""
    audit = dict(experiment.keys["audit"]) | {"epsilons": [EPSILON], "datasets": None, "reference": "bp"}

    def jobs(rule: str) -> list[Job]:
        conditions = {
            (attack, gradient)
            for dataset in experiment.datasets
            for attack, gradient in experiment.conditions(dataset, rule, experiment.keys["seeds"][0])
            if attack in audit["attacks"] and not gradient.startswith("through")
        }
        return [
            Job(*condition, at_small_budget(experiment.attack(*condition).get("settings", {})))
            for condition in sorted(conditions)
        ]

    rule = max((rule for rule in experiment.keys["rules"] if rule != "bp"), key=lambda rule: len(jobs(rule)))
    return AttackSet(audit, jobs(rule), jobs("bp"), rule)


_BUDGET = {"steps": 8, "queries": 40, "targets": 2, "restarts": 1, "draws": 2}


def at_small_budget(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with fewer steps and queries, those of a cascade's stages, too; fewer steps are longer.

    Convergence is not checked: at this budget it would say nothing of the experiment's.
    """
    small = {
        name: at_small_budget(value) if isinstance(value, Mapping) else min(value, _BUDGET.get(name, value))
        for name, value in settings.items()
    }
    if "relative_step" in small:
        small["relative_step"] = max(small["relative_step"], 2.5 / small.get("steps", _BUDGET["steps"]))
    return small


@dataclass
class Laboratory:
    """Attacks networks, one of each seed, on the same images; in each way only once."""

    data: Subset
    networks: Mapping[str, Sequence[nn.Module]]
    surrogates: Mapping[str, Sequence[nn.Module]]
    known: dict[str, list[Record]] = field(default_factory=dict)

    def records(self, name: str, jobs: Sequence[Job], feedback: str, rule: str) -> list[Record]:
        """The records that the stages would write for networks of a name, filed as those of a rule."""
        made = self._clean(name)
        for job in jobs:
            key = repr((name, job, feedback if job.gradient == "feedback" else ""))
            if key not in self.known:
                self.known[key] = [self._record(seed, name, job, feedback) for seed in range(len(self.networks[name]))]
            made += self.known[key]
        return [relabelled(one, rule, one.keys.seed) for one in made]

    def _record(self, seed: int, name: str, job: Job, feedback: str) -> Record:
        attack, model = get_attack(job.attack), self.networks[name][seed]
        parameters = parse(plugins.settings_class("attack", job.attack), dict(job.settings), job.attack)
        surrogate, generator = job.gradient.partition("surrogate:")[2], torch.Generator().manual_seed(seed)
        chosen = {key: models[seed] for key, models in self.surrogates.items() if surrogate in ("", key)}

        def views(n: int) -> list[nn.Module]:
            return [apply_rule(model, feedback, generator=generator).eval() for _ in range(n)]

        by_feedback = job.gradient == "feedback"
        result = run_attack(
            attack,
            parameters,
            views(1)[0] if by_feedback else model,
            self.data,
            torch.arange(len(self.data.labels)),
            [EPSILON],
            batch_size=len(self.data.labels),
            seed=seed,
            helpers=Helpers(
                surrogates=chosen if attack.uses_surrogate else {},
                views=views if by_feedback and get_rule(feedback).redraws else None,
            ),
        )
        made = record(name, seed, job.attack, job.gradient, result.correct.numpy(), epsilons=[EPSILON], **result.checks)
        made.content["settings"] = {"parameters": dict(job.settings)}
        return made

    def _clean(self, name: str) -> list[Record]:
        x, labels = to_unit_interval(self.data.images), self.data.labels
        with torch.no_grad():
            right = [(model(x).argmax(1) == labels).numpy() for model in self.networks[name]]
        return [record(name, seed, "clean", "none", [row], chance=1 / N_CLASSES) for seed, row in enumerate(right)]
