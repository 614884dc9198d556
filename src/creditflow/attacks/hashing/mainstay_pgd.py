"""PGD away from the mainstay code of a query's classes (Yuan et al., SAAT, 2023), not from the query's own code.

What is relevant for a query lies near the codes of its classes. So the attack first computes the mainstay code b from
the codes r of the training images: with w_i+ = cos(label of the query, label of image i) for images that share a label,
and w_i- = 1 for images that share none, each divided by its sum,

    b = sign(sum_i w_i+ r_i - sum_i w_i- r_i).

With soft bits h = tanh(f / s), where s is the image's mean |f|, it descends sum_k m_k h_k b_k (h_k b_k + 2). The mask
m_k is 1 while h_k b_k > -0.5, so that a bit that has flipped is left alone. SAAT takes h = tanh(f), which is flat where
|f| is large; the scale s keeps its slope.
"""

import torch
from torch import Tensor

from creditflow.attacks.hash_attack import HashAttack, HashProblem, project
from creditflow.attacks.hashing.settings.mainstay_pgd import Settings


def mainstay_codes(problem: HashProblem) -> Tensor:
    """Returns the mainstay codes (N, K) of the queries, 1 or -1.

    A bit of which the weighted votes are equal, and all bits of a query without a relevant training image, are the
    query's own.
    """
    codes, relevant = problem.train_codes.to(problem.outputs.dtype), problem.relevant
    near = relevant * _cosines(problem) if problem.labels.dim() == 2 else relevant
    votes = (_shares(near) - _shares(1 - relevant)) @ codes
    votes = torch.where(relevant.sum(1, keepdim=True) > 0, votes, 0.0)
    return torch.where(votes == 0, problem.codes, votes.sign())


def _cosines(problem: HashProblem) -> Tensor:
    """Returns cosines (N, M) between the labels of queries and those of training images, zeros and ones."""
    first, second = problem.labels.double(), problem.train_labels.double()
    lengths = first.norm(dim=1)[:, None] * second.norm(dim=1)[None, :]
    cosines: Tensor = (first @ second.T / lengths.clamp(min=1)).to(problem.outputs.dtype)
    return cosines


def _shares(weights: Tensor) -> Tensor:
    """Returns weights (N, M) divided by their sums over the training images; zeros where the sum is zero."""
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-12)


def loss(outputs: Tensor, mainstay: Tensor, scale: Tensor) -> Tensor:
    """Returns the loss (N,) for outputs (N, K), mainstay codes (N, K) and the scales (N, 1) of the outputs."""
    agreement = torch.tanh(outputs / scale) * mainstay
    return ((agreement.detach() > -0.5) * agreement * (agreement + 2)).sum(1)


def propose(problem: HashProblem, epsilon: float, settings: Settings) -> Tensor:
    """Descends the loss by sign steps."""
    mainstay, scale = mainstay_codes(problem), problem.outputs.abs().mean(1, keepdim=True).clamp(min=1e-12)
    x = problem.images
    if settings.random_start:
        x = project(x + epsilon * problem.noise, problem.images, epsilon)
    for _ in range(settings.iterations):
        gradient = problem.gradient_of(lambda outputs, _: loss(outputs, mainstay, scale), x, mainstay)
        x = project(x - settings.relative_step * epsilon * gradient.sign(), problem.images, epsilon)
    return x


ATTACK = HashAttack(norm="linf", uses_gradient=True, propose=propose, aims_at_class=True)
