"""SDHA (Lu et al., ICMR 2021), non-targeted: the code is to leave the codes of relevant training images.

The paper's own code is not public. This follows the re-implementation in SAAT (Yuan et al., 2023). With q = tanh(alpha
f(x')) and the codes r of training images that share a label, it descends

    mean over pixels of (x' - x)^2 - (weight / K) mean_r w(q, r) d(q, r),
    d(q, r) = sum_k 0.5 |q_k - r_k| s_k + 1 - s_k,  s_k = sigmoid(slope q_k r_k),
    w(q, r) = (Hamming distance of sign q and r, + 1e-8)^-power, through which no gradient runs.

A bit that has flipped has no gradient left, so that the budget goes to the others. Adam's step is about `rate` whatever
the gradient is. So in T iterations no pixel moves further than about T rate, however large epsilon is.
"""

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project, sharpness
from creditflow.attacks.hashing.settings.sdha import Settings
from creditflow.retrieval.codes import hash_codes


def loss(outputs: Tensor, x: Tensor, problem: HashProblem, alpha: float, settings: Settings) -> Tensor:
    """Returns the loss (N,) for outputs (N, K) at images x.

    As r_k is 1 or -1, the sum over r of w d has two terms for each bit: d for r_k = 1 times the weight of the codes
    that have it, and the same for -1. These are two matrix products instead of a tensor of N x M x K.
    """
    q = torch.tanh(alpha * outputs)
    codes, bits = problem.train_codes.to(q.dtype), q.shape[1]
    distances = (bits - hash_codes(q.detach()).to(q.dtype) @ codes.T) / 2
    weights = (distances + 1e-8) ** -settings.power * problem.relevant
    weights = weights / problem.relevant.sum(1, keepdim=True).clamp(min=1)
    up = weights @ (codes > 0).to(q.dtype)
    down = weights @ (codes < 0).to(q.dtype)
    # Without a relevant training image the clean code stands for their codes.
    alone = (problem.relevant.sum(1, keepdim=True) == 0).to(q.dtype)
    weight = ((hash_codes(q.detach()) != problem.codes).sum(1, keepdim=True) + 1e-8) ** -settings.power
    up, down = (part + alone * weight * (problem.codes == sign) for part, sign in ((up, 1), (down, -1)))
    far = (up * _distance(q, 1.0, settings.slope) + down * _distance(q, -1.0, settings.slope)).sum(1)
    return (x - problem.images).square().flatten(1).mean(1) - settings.weight / bits * far


def _distance(q: Tensor, bit: float, slope: float) -> Tensor:
    gate = torch.sigmoid(slope * q * bit)
    return 0.5 * (q - bit).abs() * gate + 1 - gate


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the loss with Adam and begins at the images themselves."""
    x = problem.images.clone()
    adam = torch.optim.Adam([x], lr=settings.rate)
    for iteration in range(settings.iterations):
        alpha = sharpness(iteration, settings.iterations)
        x.grad = problem.gradient_of(lambda outputs, at, alpha=alpha: loss(outputs, at, problem, alpha, settings), x)
        adam.step()
        with torch.no_grad():
            x.copy_(project(x, problem.images, epsilon))
    return x.detach()


ATTACK = HashAttack(norm="linf", uses_gradient=True, propose=propose)
