"""The target-propagation paper's Figure 2: how much of an update changes nothing (Meulemans et al., 2020).

The forward weights of a student network are frozen, while its feedback learns on a teacher's regression, one example at
a time. The output has two units. Of an update of hidden weights, only the part in the row space of the output's
Jacobian moves the output; the rest lies in the null space.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward, initial_parameters
from creditflow.populations.nullspace_settings import NullspaceSettings
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.optimizers import Optimizer
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.records.record import Metric

#: Widths of student and teacher. The teacher's hidden units are ReLUs; its weights are Xavier normal times this gain.
STUDENT, TEACHER, GAIN = (6, 6, 6, 2), (6, 1000, 1000, 1000, 1000, 2), 3.0

#: The layer whose update is measured.
LAYER = 2

#: The squared error, as a mean over outputs. Its slope is not divided by the batch.
REGRESSION = Loss(
    lambda logits, targets: (logits - targets).square().mean(-1),
    lambda logits, targets: 2 * (logits - targets) / logits.shape[-1],
)


def nullspace_ratios(rule: UpdateRule, settings: NullspaceSettings, seed: int) -> Tensor:
    """Returns |part of the update in the null space| / |update| (N,) of hidden layer 2's weights, in float64, for the
    measured steps.

    Raises UserError if the rule's feedback diverges, or learns by other means than feedback steps on examples.
    """
    if rule.feedback_step_after_each_step or ("dd" in rule.plastic and rule.feedback_step is None):
        raise UserError(f"{rule.title}: its feedback does not learn from examples alone; leave it out of nullspace")
    student = _Student(rule, settings, seed)
    period = 1 + settings.extra_feedback_epochs
    ratios = []
    for epoch in range(settings.feedback_epochs + settings.epochs * period):
        later = epoch - settings.feedback_epochs
        measured = later >= 0 and later % period == 0
        for step, index in enumerate(torch.randperm(len(student.examples), generator=student.data).tolist()):
            if measured and step % settings.every == 0:
                ratios.append(student.ratio(index))
            student.learn(index)
    result = torch.stack(ratios)
    if not bool(result.isfinite().all()):
        raise UserError(f"{rule.title}: its feedback diverged; lower feedback_learning_rate")
    return result


def nullspace_metrics(ratios: Tensor) -> list[Metric]:
    """Returns mean and standard deviation of the ratios (N,)."""
    return [
        Metric("nullspace_ratio", None, float(ratios.mean()), len(ratios)),
        Metric("nullspace_ratio_deviation", None, float(ratios.std()), len(ratios)),
    ]


class _Student:
    """A student whose feedback learns. All its random numbers derive from the seed."""

    def __init__(self, rule: UpdateRule, settings: NullspaceSettings, seed: int) -> None:
        self.rule, self.rule_settings, self.network = rule, rule.parse_settings(settings.rule), Network(STUDENT, "tanh")
        weights, feedback_stream, self.data = (
            randomness.generator("nullspace", kind, seed) for kind in ("weights", "feedback", "data")
        )
        self.parameters = initial_parameters(self.network, "xavier_normal", weights)
        feedback = rule.init(self.network, self.rule_settings, feedback_stream)
        self.feedback = {
            name: value[None] for name, value in feedback.items()
        }  # a population of one, for the optimiser
        self.examples = list(_examples(settings.examples, self.data))
        self.optimizer = Optimizer(OptimizerSettings(weight_decay=settings.feedback_weight_decay))
        self.rate = torch.tensor([settings.feedback_learning_rate], dtype=torch.float64)

    def ratio(self, index: int) -> Tensor:
        """Returns the share of the null space in the update for an example."""
        arguments = self._arguments(index)
        directions = self.rule.step(self.network, REGRESSION, self.rule_settings, *arguments).directions
        return null_share(self.network, self.parameters, self.examples[index][0], directions[f"weight{LAYER}"])

    def learn(self, index: int) -> None:
        """Takes a feedback step on an example, if the rule's feedback learns."""
        if self.rule.feedback_step is not None:
            arguments = self._arguments(index)
            directions = self.rule.feedback_step(self.network, REGRESSION, self.rule_settings, *arguments)
            self.optimizer.step(self.feedback, {name: value[None] for name, value in directions.items()}, self.rate)

    def _arguments(self, index: int) -> tuple[Parameters, Parameters, Batch]:
        widths = self.rule.noise_widths(self.network, self.rule_settings)
        noise = tuple(torch.randn(1, width, generator=self.data, dtype=torch.float64) for width in widths)
        feedback = {name: value[0] for name, value in self.feedback.items()}
        return self.parameters, feedback, Batch(*self.examples[index], (), noise)


def null_share(network: Network, parameters: Parameters, image: Tensor, direction: Tensor) -> Tensor:
    """Returns the share of an update of W_2 that leaves the output of one example (1, n_0) as it is, to first order.

    The update for one example is t h_1^T, and row c of the output's Jacobian is (diag(f'(a_2)) W_3[c]) h_1^T. The share
    is |t - P t| / |t|, where P projects on the span of the vectors diag(f'(a_2)) W_3[c].
    """
    activity = forward(network, parameters, image)
    below = activity.inputs[LAYER - 1][0]
    t = direction @ below / below.square().sum()
    rows = network.activate.back(parameters[f"weight{LAYER + 1}"], activity.hidden[LAYER - 1])
    basis = torch.linalg.qr(rows.T).Q
    share: Tensor = (t - basis @ (basis.T @ t)).norm() / t.norm()
    return share


def _examples(n: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields inputs (1, 6) ~ U(-1, 1) and a random teacher's outputs (1, 2) for them."""
    deviations = [GAIN * math.sqrt(2 / (n_in + n_out)) for n_in, n_out in pairwise(TEACHER)]
    weights = [
        torch.randn(n_out, n_in, generator=generator, dtype=torch.float64) * deviation
        for (n_in, n_out), deviation in zip(pairwise(TEACHER), deviations, strict=True)
    ]
    x = torch.rand(n, TEACHER[0], generator=generator, dtype=torch.float64) * 2 - 1
    y = x
    for weight in weights[:-1]:
        y = (y @ weight.T).relu()
    y = y @ weights[-1].T
    yield from zip(x.split(1), y.split(1), strict=True)
