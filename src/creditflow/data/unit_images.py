"""Images that are numbers in [0, 1] already, as somebody else's data are; they are not changed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.data.prepared import Subset
from creditflow.data.settings import Augmentation


@dataclass(frozen=True)
class UnitImages(Subset):
    """Like `Subset`, but the images are float32 (N, C, H, W) in [0, 1], and networks see them as they are."""

    def _finish(
        self, stored: Tensor, chosen: Tensor, change: Augmentation | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        return stored.to(self.device), self.labels[chosen.to(self.labels.device)].to(self.device)


def unit_images(images: Tensor, labels: Tensor, device: torch.device) -> UnitImages:
    """Returns images float32 (N, C, H, W) in [0, 1] and labels int64 (N,); a device gets one batch at a time."""
    return UnitImages(images, labels, (), (), (), device=device)
