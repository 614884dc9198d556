"""How many directions a matrix uses."""

import torch
from torch import Tensor


def singular_values(matrix: Tensor) -> Tensor:
    """Returns them, greatest first; NaN for a matrix that is not finite, on which a decomposition of a whole population would fail."""
    values = torch.linalg.svdvals(torch.nan_to_num(matrix, 0, 0, 0))
    return torch.where(matrix.isfinite().all(), values, torch.full_like(values, torch.nan))


def effective_rank_of(values: Tensor) -> Tensor:
    """Returns exp(-sum_i p_i log p_i) of p_i = s_i / sum s, the shares of singular values s (Roy and Vetterli, 2007); 0 if all are zero."""
    total = values.sum()
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    rank = (-torch.special.xlogy(shares, shares).sum()).exp()
    return torch.where(total == 0, torch.zeros_like(rank), rank)
