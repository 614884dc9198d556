"""Adversarial images that are kept beside the outcomes, for readers to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """The first M of the attacked images, at K epsilons, on the CPU.

    Attributes:
        images: float32 (K, M, C, H, W), what the attack proposed.
        clean: float32 (M, C, H, W), the images themselves.
        predictions: int64 (K, M), the classes that the model predicts for `images`.
        clean_predictions: int64 (M,), those that it predicts for `clean`.
        labels: the true labels, int64 (M,) or uint8 zeros and ones (M, L).
    """

    images: Tensor
    clean: Tensor
    predictions: Tensor
    clean_predictions: Tensor
    labels: Tensor

    def outcomes(self) -> dict[str, Tensor]:
        """Returns the tensors by the names that they have in a record."""
        return {
            "kept_images": self.images,
            "kept_clean": self.clean,
            "kept_predictions": self.predictions,
            "kept_clean_predictions": self.clean_predictions,
            "kept_labels": self.labels,
        }


def join(parts: Sequence[Kept], n_images: int) -> Kept:
    """Returns the first `n_images` of several batches, in order."""
    return Kept(
        images=torch.cat([part.images for part in parts], dim=1)[:, :n_images],
        clean=torch.cat([part.clean for part in parts])[:n_images],
        predictions=torch.cat([part.predictions for part in parts], dim=1)[:, :n_images],
        clean_predictions=torch.cat([part.clean_predictions for part in parts])[:n_images],
        labels=torch.cat([part.labels for part in parts])[:n_images],
    )
