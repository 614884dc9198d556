"""How many directions a matrix uses: singular values and the effective rank."""

import torch
from torch import Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """Returns the singular values of a matrix, the largest first.

    They are NaN for a matrix that is not finite, so that one such member does not stop the decomposition of a whole
    population.
    """
    values = torch.linalg.svdvals(torch.nan_to_num(matrix, 0, 0, 0))
    return torch.where(matrix.isfinite().all(), values, torch.full_like(values, torch.nan))


def effective_rank_of(values: Tensor) -> Tensor:
    """Returns the effective rank exp(-sum_i p_i log p_i) of singular values s, with p_i = s_i / sum s (Roy and
    Vetterli, 2007).

    It is 0 if all values are zero.
    """
    total = values.sum()
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    rank = (-torch.special.xlogy(shares, shares).sum()).exp()
    return torch.where(total == 0, torch.zeros_like(rank), rank)
