"""The HyP2 loss (Xu et al., MM 2022): classes are proxies on a hypersphere, images come near those of their labels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.core.errors import UserError
from creditflow.retrieval.zeta import zeta

_VARIANTS = ("official", "h2q")


@dataclass(frozen=True)
class HyP2Settings:
    """Parameters of the loss.

    Attributes:
        beta: weight of the pair term.
        variant: "official" as in the authors' code, where only images of two labels or more make pairs, so that there is no pair
            term where each image has one label; "h2q" as in Schwengber et al. (2023), where all images do and proxies go through tanh.
        zeta: margin, a cosine; None derives it from bits and classes (`zeta`).
    """

    beta: float = 0.5
    variant: str = "official"
    zeta: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.beta < math.inf:
            raise ValueError(f"beta must be at least 0, not {self.beta}")
        if self.variant not in _VARIANTS:
            raise ValueError(f"variant must be one of {', '.join(_VARIANTS)}, not {self.variant!r}")
        if self.zeta is not None and not -1 <= self.zeta < 1:
            raise ValueError(f"zeta must be in [-1, 1), not {self.zeta}")


class HyP2(nn.Module):
    """L = L_pos + L_neg + beta L_pair, for outputs x (N, K) and proxies p (C, K); all means are over the batch.

    L_pos is the mean of 1 - cos(x_i, p_c) where image i has label c, L_neg that of max(0, cos(x_i, p_c) - zeta) where it has not,
    and L_pair that of max(0, cos(x_i, x_j) - zeta) over the pairs of images that share no label; 0 if there is none.

    Proxies are no layer of the network: they get their exact gradient whatever the rule. They begin as in the authors' code,
    normal with variance 2 / C.

    Raises UserError if there is one class only, or none: there would be nothing to keep apart.
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
        everyone = self.settings.variant == "h2q"
        if self.settings.beta == 0:
            return outputs.new_zeros(())
        takes_part = torch.ones_like(has[:, 0]) if everyone else has.sum(1) >= 2
        shared = has.to(outputs.dtype) @ has.to(outputs.dtype).T
        pairs = (shared == 0) & takes_part[:, None] & takes_part[None, :]
        units = F.normalize(outputs, dim=1)
        return self.settings.beta * _mean(F.relu(units @ units.T - self.zeta), pairs)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Returns the mean of the values where it holds; 0 if it holds nowhere. The device never waits."""
    return (values * where).sum() / where.sum().clamp(min=1)
