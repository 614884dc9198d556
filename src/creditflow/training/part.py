"""A fixed part of the training images: every rule and every seed learns from the same images."""

import dataclasses

import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.prepared import Subset


def training_part(data: Subset, n_images: int | None) -> Subset:
    """Returns a subset with some of its images, in their order; all of them if `n_images` is None or all there are.

    Each class keeps its share of the images, up to rounding. The images of several labels are drawn from all alike.
    The draw depends on the subset and the number alone.

    Raises UserError if there are fewer images than asked for, or fewer images than classes are asked for.
    """
    n_available = len(data.labels)
    if n_images is None or n_images == n_available:
        return data
    if n_images > n_available:
        raise UserError(f"train_images is {n_images}, but there are {n_available} training images; lower it")
    strata = torch.zeros(n_available, dtype=torch.int64) if data.multi_label else data.labels.cpu()
    chosen = _stratified(strata, n_images)
    if not data.multi_label and n_images < len(data.class_names):
        raise UserError(
            f"train_images is {n_images}, but there are {len(data.class_names)} classes; give each an image"
        )
    images = data.images
    if isinstance(images, ImageFiles):
        kept: Tensor | ImageFiles = ImageFiles(images.folder, [images.names[index] for index in chosen.tolist()])
    else:
        kept = images[chosen.to(images.device)]
    return dataclasses.replace(data, images=kept, labels=data.labels[chosen.to(data.labels.device)])


def _stratified(strata: Tensor, n_chosen: int) -> Tensor:
    """Returns sorted indices (n_chosen,) of elements whose strata, int64 (N,), have their shares of all N."""
    counts = strata.bincount()
    exact = counts.double() * n_chosen / len(strata)
    quotas = exact.floor().long()
    # The largest remainders get what rounding has left.
    left = n_chosen - int(quotas.sum())
    quotas[(exact - quotas).argsort(descending=True, stable=True)[:left]] += 1
    order = torch.randperm(len(strata), generator=randomness.generator("training images"))
    parts = [order[strata[order] == stratum][:quota] for stratum, quota in enumerate(quotas.tolist())]
    return torch.cat(parts).sort().values
