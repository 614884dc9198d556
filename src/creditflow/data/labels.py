"""Losses and verdicts for images of one label and of several.

The sign-symmetry paper trains networks for MS-COCO and NUS-WIDE, whose images have several labels, with cross-entropy and
reports top-1 accuracy. Our reading: the target is the normalised multi-hot vector, and a prediction is right if it is among
the image's labels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Returns the cross-entropy of logits (N, K) with labels int64 (N,), or with y / sum(y) for zeros and ones y (N, K)."""
    if labels.dim() == 2:
        target = labels.to(logits.dtype)
        return F.cross_entropy(logits, target / target.sum(1, keepdim=True), reduction=reduction)
    return F.cross_entropy(logits, labels, reduction=reduction)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy (N,) of each image."""
    return cross_entropy(logits, labels, reduction="none")


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns sum_c (p_c - y_c)^2 (N,) of the probabilities p = softmax(logits), for labels int64 (N,)."""
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1)


def logits_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the difference of logits ratio (N,), -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)) (Croce and Hein, 2020), for labels
    int64 (N,) of three classes or more."""
    place = labels[:, None]
    other = logits.scatter(1, place, -torch.inf).amax(1)
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return (other - logits.gather(1, place)[:, 0]) / (first - third + 1e-12)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N,): is the largest logit that of a label?"""
    return holds(logits.argmax(1), labels)


def holds(predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N,): is the predicted class (N,) among the image's labels, (N,) or (N, K)?"""
    if labels.dim() == 2:
        return labels.gather(1, predictions[:, None])[:, 0] > 0
    return predictions == labels


def holds_for_all(predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N, M): is the m-th predicted class among the labels of the n-th image?"""
    if labels.dim() == 2:
        return labels[:, predictions] > 0
    return labels[:, None] == predictions[None, :]


def per_class(labels: Tensor, n_classes: int) -> Tensor:
    """Returns int64 (K,): how many images have each label."""
    return labels.sum(0, dtype=torch.int64) if labels.dim() == 2 else labels.bincount(minlength=n_classes)
