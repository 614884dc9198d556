"""How many directions a matrix uses."""

import torch
from torch import Tensor


def effective_rank(matrix: Tensor) -> Tensor:
    """Returns exp(-sum_i p_i log p_i) of p_i = s_i / sum s, the singular values' shares (Roy and Vetterli, 2007); 0 for a zero matrix."""
    values = torch.linalg.svdvals(matrix)
    total = values.sum()
    shares = values / total.clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return torch.where(total > 0, entropy.exp(), torch.zeros_like(entropy))
