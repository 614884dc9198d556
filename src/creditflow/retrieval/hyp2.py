"""The HyP2 loss (Xu et al., MM 2022): classes are proxies on a hypersphere; images approach those of their labels."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.core.errors import UserError
from creditflow.retrieval.settings import HyP2Settings
from creditflow.retrieval.zeta import zeta


class HyP2(nn.Module):
    """L = L_pos + L_neg + beta L_pair, for outputs x (N, K) and proxies p (C, K); all means are over the batch.

    L_pos is the mean of 1 - cos(x_i, p_c) where image i has label c. L_neg is the mean of max(0, cos(x_i, p_c) - zeta)
    where it has not. L_pair is the mean of max(0, cos(x_i, x_j) - zeta) over the pairs of images that share no label,
    or 0 without such pairs.

    Proxies are no layer of the network, so that they get their exact gradient under every rule. They begin as in the
    authors' code, normal with variance 2 / C.

    Raises UserError for fewer than two classes: there would be nothing to keep apart.
    """

    def __init__(self, bits: int, n_classes: int, settings: HyP2Settings, generator: torch.Generator) -> None:
        super().__init__()
        if n_classes < 2:
            raise UserError(f"retrieval is learnt from at least two classes, not {n_classes}; check `classes`")
        self.settings = settings
        self.zeta = zeta(bits, n_classes) if settings.zeta is None else settings.zeta
        self.proxies = nn.Parameter(torch.randn(n_classes, bits, generator=generator) * math.sqrt(2 / n_classes))

    def cosines(self, outputs: Tensor) -> Tensor:
        """Returns the cosines (N, C) between outputs and proxies."""
        proxies = self.proxies.tanh() if self.settings.variant == "h2q" else self.proxies
        return F.normalize(outputs, dim=1) @ F.normalize(proxies, dim=1).T

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of outputs (N, K) for labels int64 (N,), or zeros and ones (N, C).

        Raises UserError if no image of the batch has a label.
        """
        has = labels > 0 if labels.dim() == 2 else F.one_hot(labels, len(self.proxies)) > 0
        if labels.dim() == 2 and not bool(has.any()):
            raise UserError(
                "no image of this batch has a label, which the HyP2 loss needs; leave images without labels out"
            )
        cosines = self.cosines(outputs)
        attraction = _mean(1 - cosines, has)
        repulsion = _mean(F.relu(cosines - self.zeta), ~has)
        return attraction + repulsion + self._pairs(outputs, has)

    def _pairs(self, outputs: Tensor, has: Tensor) -> Tensor:
        if self.settings.beta == 0:
            return outputs.new_zeros(())
        takes_part = torch.ones_like(has[:, 0]) if self.settings.variant == "h2q" else has.sum(1) >= 2
        shared = has.to(outputs.dtype) @ has.to(outputs.dtype).T
        pairs = (shared == 0) & takes_part[:, None] & takes_part[None, :]
        units = F.normalize(outputs, dim=1)
        return self.settings.beta * _mean(F.relu(units @ units.T - self.zeta), pairs)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Returns the mean of the values at which `where` is true, 0 without any; the host never waits for the device."""
    return (values * where).sum() / where.sum().clamp(min=1)
