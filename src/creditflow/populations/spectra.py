"""How many directions a matrix uses."""

import torch
from torch import Tensor


def effective_rank(matrix: Tensor) -> Tensor:
    """Returns exp(-sum_i p_i log p_i) of p_i = s_i / sum s, the singular values' shares (Roy and Vetterli, 2007).

    It is 0 for a zero matrix and NaN for one that is not finite, on which a decomposition of a whole population would fail.
    """
    values = torch.linalg.svdvals(torch.nan_to_num(matrix, 0, 0, 0))
    total = values.sum()
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    rank = (-torch.special.xlogy(shares, shares).sum()).exp()
    rank = torch.where(total > 0, rank, torch.zeros_like(rank))
    return torch.where(matrix.isfinite().all(), rank, torch.full_like(rank, torch.nan))
