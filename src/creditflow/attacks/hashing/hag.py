"""HAG, Hamming-space adversarial generation (Yang et al., 2018), non-targeted: each bit is to leave the clean code.

The paper's own code is not public; this follows the re-implementation in SAAT (Yuan et al., 2023). With h = tanh(alpha f(x')), the
clean soft code o = tanh(f(x)) and a mask m of the bits not yet flipped by more than `threshold`, it descends

    (sum_k m_k h_k o_k / sum_k m_k + 1)^2 + balance (mean_k m_k h_k)^2.

Each image has its own loss, so that its step does not depend on the batch: there the loss is a batch mean, and the step shrinks as the
batch grows. The image that counts is the last one, not the one before.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project, sharpness

_STEPS = ("gradient", "sign", "l2")


@dataclass(frozen=True)
class Settings:
    """Budget and form of the steps. The paper that attacks with it says 5 iterations and no step; SAAT has 2,000 at epsilon 8/255.

    Attributes:
        iterations: number of steps.
        step: "gradient" adds the gradient times `rate`, with momentum (SAAT, for a batch of one image); "sign" adds the gradient's
            sign times `relative_step` epsilon; "l2" the gradient divided by its length times `rate`,
            which then is a length (1 in DHTA).
        rate, momentum, relative_step: sizes for these.
        threshold: a bit leaves the mask where h is beyond it on the other side.
        balance: weight of the second term.
    """

    iterations: int = 5
    step: str = "gradient"
    rate: float = 100.0
    momentum: float = 0.9
    relative_step: float = 1 / 3
    threshold: float = 0.5
    balance: float = 1.0

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.step not in _STEPS:
            raise ValueError(f"iterations must be at least 1 and step one of {', '.join(_STEPS)}")
        if not (
            self.rate > 0
            and self.relative_step > 0
            and 0 <= self.momentum < 1
            and 0 < self.threshold < 1
            and self.balance >= 0
        ):
            raise ValueError(
                "rate, relative_step must be positive, momentum in [0, 1), threshold in (0, 1), balance at least 0"
            )


def loss(outputs: Tensor, clean: Tensor, alpha: float, settings: Settings) -> Tensor:
    """Returns the loss (N,) for outputs (N, K) and the clean soft code (N, K)."""
    h = torch.tanh(alpha * outputs)
    mask = (torch.sign(1 + settings.threshold - (h.detach() - torch.sign(clean)).abs()) + 1) / 2
    similarity = (mask * h * clean).sum(1) / (mask.sum(1) + 1e-8)
    return (similarity + 1).square() + settings.balance * (mask * h).mean(1).square()


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the loss from the images themselves."""
    clean, x = torch.tanh(problem.outputs), problem.images
    velocity = torch.zeros_like(x)
    for iteration in range(settings.iterations):
        alpha = sharpness(iteration, settings.iterations)
        gradient = problem.gradient_of(lambda outputs, _, alpha=alpha: loss(outputs, clean, alpha, settings), x)  # type: ignore[misc]
        if settings.step == "sign":
            step = settings.relative_step * epsilon * gradient.sign()
        elif settings.step == "l2":
            step = settings.rate * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
        else:
            velocity = settings.momentum * velocity + gradient
            step = settings.rate * velocity
        x = project(x - step, problem.images, epsilon)
    return x


ATTACK = HashAttack(norm="linf", uses_gradient=True, settings=Settings, propose=propose)
