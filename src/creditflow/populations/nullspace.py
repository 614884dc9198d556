"""The target-propagation paper's Figure 2: how much of an update changes nothing.

A student network with frozen forward weights learns feedback on a teacher's regression, an example at a time. The output has two units, so
that of the update of hidden weights only what lies in the row space of the output's Jacobian moves it; the rest is in its null space.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward, initial_parameters
from creditflow.populations.optimizers import Optimizer, OptimizerSettings
from creditflow.populations.rule import Batch, UpdateRule

#: Widths of student and teacher; the teacher's hidden units are ReLUs, its weights Xavier normal times this gain.
STUDENT, TEACHER, GAIN = (6, 6, 6, 2), (6, 1000, 1000, 1000, 1000, 2), 3.0

#: The layer whose update is looked at.
LAYER = 2

#: Mean over outputs of the squared error; its slope is not divided by the batch.
REGRESSION = Loss(lambda y, t: (y - t).square().mean(-1), lambda y, t: 2 * (y - t) / y.shape[-1])


@dataclass(frozen=True)
class NullspaceSettings:
    """Hyper-parameters of a rule's run.

    Attributes:
        rule: settings of the rule.
        feedback_learning_rate, feedback_weight_decay: of the SGD by which feedback learns; unused by rules whose feedback does not.
        examples: of an epoch.
        feedback_epochs: before anything is measured; `epochs` in which every `every`-th step is, each followed by
            `extra_feedback_epochs`.
    """

    rule: dict[str, Any] = field(default_factory=dict)
    feedback_learning_rate: float = 0.01
    feedback_weight_decay: float = 0.0
    examples: int = 400
    feedback_epochs: int = 30
    epochs: int = 5
    extra_feedback_epochs: int = 1
    every: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.feedback_learning_rate < math.inf and 0 <= self.feedback_weight_decay < math.inf):
            raise ValueError("feedback_learning_rate must be positive and finite, feedback_weight_decay at least 0")
        if min(self.examples, self.epochs, self.every) < 1 or min(self.feedback_epochs, self.extra_feedback_epochs) < 0:
            raise ValueError("examples, epochs and every must be at least 1, the other epochs at least 0")
        if self.every > self.examples:
            raise ValueError("every must not be more than examples")


def nullspace_ratios(rule: UpdateRule, settings: NullspaceSettings, seed: int) -> Tensor:
    """Returns |part of the update in the null space| / |update| (N,) of hidden layer 2's weights, in float64, for the steps looked at.

    Raises UserError if the rule's feedback diverges, or learns by other means than feedback steps on examples.
    """
    if rule.follows or ("dd" in rule.plastic and rule.feedback_step is None):
        raise UserError(f"{rule.name}: its feedback does not learn from examples alone; leave it out of nullspace")
    own = parse(rule.settings, settings.rule, f"settings of rule {rule.name}")
    network = Network(STUDENT, "tanh")
    weights, feedback_stream, data = (
        randomness.generator("nullspace", kind, seed) for kind in ("weights", "feedback", "data")
    )
    parameters = initial_parameters(network, "xavier_normal", weights)
    feedback = {name: value[None] for name, value in rule.init(network, own, feedback_stream).items()}
    examples = list(_examples(settings.examples, data))
    optimizer = Optimizer(OptimizerSettings(weight_decay=settings.feedback_weight_decay))
    rate = torch.tensor([settings.feedback_learning_rate], dtype=torch.float64)
    noises = rule.noise(network, own)

    def batch_of(index: int) -> Batch:
        noise = tuple(torch.randn(1, width, generator=data, dtype=torch.float64) for width in noises)
        return Batch(*examples[index], (), noise)

    def learn() -> None:
        if rule.feedback_step is not None:
            state = {name: value[0] for name, value in feedback.items()}
            directions = rule.feedback_step(network, REGRESSION, own, parameters, state, batch_of(index))
            optimizer.step(feedback, {name: value[None] for name, value in directions.items()}, rate)

    ratios = []
    for epoch in range(settings.feedback_epochs + settings.epochs * (1 + settings.extra_feedback_epochs)):
        measured = (
            epoch >= settings.feedback_epochs
            and (epoch - settings.feedback_epochs) % (1 + settings.extra_feedback_epochs) == 0
        )
        for step, index in enumerate(torch.randperm(len(examples), generator=data).tolist()):
            if measured and step % settings.every == 0:
                state = {name: value[0] for name, value in feedback.items()}
                directions = rule.step(network, REGRESSION, own, parameters, state, batch_of(index)).directions
                ratios.append(null_share(network, parameters, examples[index][0], directions[f"weight{LAYER}"]))
            learn()
    found = torch.stack(ratios)
    if not bool(found.isfinite().all()):
        raise UserError(f"{rule.name}: its feedback diverged; lower feedback_learning_rate")
    return found


def null_share(network: Network, parameters: Parameters, image: Tensor, direction: Tensor) -> Tensor:
    """Returns the share of an update of W_2 that leaves the output of one example (1, n_0) as it is, to first order.

    The update of one example is t h_1^T, and row c of the output's Jacobian (diag(f'(a_2)) W_3[c]) h_1^T: the share is |t - P t| / |t|,
    with P the projector on what those rows have in place of t.
    """
    found = forward(network, parameters, image)
    below = found.inputs[LAYER - 1][0]
    t = direction @ below / below.square().sum()
    rows = network.activate.back(parameters[f"weight{LAYER + 1}"], found.hidden[LAYER - 1])
    basis = torch.linalg.qr(rows.T).Q
    share: Tensor = (t - basis @ (basis.T @ t)).norm() / t.norm()
    return share


def _examples(n: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields inputs (1, 6) ~ U(-1, 1) and what a random teacher makes of them (1, 2)."""
    deviations = [GAIN * math.sqrt(2 / (n_in + n_out)) for n_in, n_out in pairwise(TEACHER)]
    drawn = [
        torch.randn(n_out, n_in, generator=generator, dtype=torch.float64) * deviation
        for (n_in, n_out), deviation in zip(pairwise(TEACHER), deviations, strict=True)
    ]
    x = torch.rand(n, TEACHER[0], generator=generator, dtype=torch.float64) * 2 - 1
    y = x
    for weight in drawn[:-1]:
        y = (y @ weight.T).relu()
    y = y @ drawn[-1].T
    yield from zip(x.split(1), y.split(1), strict=True)
