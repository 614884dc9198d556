"""HAG, Hamming-space adversarial generation (Yang et al., 2018), non-targeted: each bit is to leave the clean code.

The paper's own code is not public. This follows the re-implementation in SAAT (Yuan et al., 2023). With h = tanh(alpha
f(x')), the clean soft code o = tanh(f(x)) and a mask m of the bits that are not yet flipped by more than `threshold`,
it descends

    (sum_k m_k h_k o_k / sum_k m_k + 1)^2 + balance (mean_k m_k h_k)^2.

Two things differ from SAAT. Each image has a loss of its own, so that its step does not depend on the batch; SAAT's
loss is a batch mean, so that steps shrink as the batch grows. And the image after the last step counts, not the one
before it.
"""

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project, sharpness
from creditflow.attacks.hashing.settings.hag import Settings


def loss(outputs: Tensor, clean: Tensor, alpha: float, settings: Settings) -> Tensor:
    """Returns the loss (N,) for outputs (N, K) and the clean soft code (N, K)."""
    h = torch.tanh(alpha * outputs)
    mask = (torch.sign(1 + settings.threshold - (h.detach() - torch.sign(clean)).abs()) + 1) / 2
    similarity = (mask * h * clean).sum(1) / (mask.sum(1) + 1e-8)
    return (similarity + 1).square() + settings.balance * (mask * h).mean(1).square()


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the loss and begins at the images themselves."""
    clean, x = torch.tanh(problem.outputs), problem.images
    velocity = torch.zeros_like(x)
    for iteration in range(settings.iterations):
        alpha = sharpness(iteration, settings.iterations)
        gradient = problem.gradient_of(lambda outputs, _, alpha=alpha: loss(outputs, clean, alpha, settings), x)
        if settings.step == "sign":
            step = settings.relative_step * epsilon * gradient.sign()
        elif settings.step == "l2":
            step = settings.rate * gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
        else:
            velocity = settings.momentum * velocity + gradient
            step = settings.rate * velocity
        x = project(x - step, problem.images, epsilon)
    return x


ATTACK = HashAttack(norm="linf", uses_gradient=True, propose=propose)
