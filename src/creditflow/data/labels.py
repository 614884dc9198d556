"""Losses of labels, and whether predictions are right, for images of one label and images of several.

The sign-symmetry paper trains networks for MS-COCO and NUS-WIDE, whose images have several labels, with cross-entropy,
and reports top-1 accuracy. Our reading: the loss compares the network's probabilities with the labels' vector of zeros
and ones, divided by its sum, and a prediction is right if it is one of the image's labels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Returns the cross-entropy of logits (N, K).

    Labels are int64 (N,), or zeros and ones y (N, K), which are compared as the probabilities y / sum(y).
    """
    if labels.dim() == 2:
        shares = labels.to(logits.dtype)
        return F.cross_entropy(logits, shares / shares.sum(1, keepdim=True), reduction=reduction)
    return F.cross_entropy(logits, labels, reduction=reduction)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy (N,) of each image."""
    return cross_entropy(logits, labels, reduction="none")


def squared_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns sum_c (p_c - y_c)^2 (N,) of the probabilities p = softmax(logits).

    Labels are int64 (N,); y is the vector that is one at an image's label and zero elsewhere.
    """
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1)


def logits_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the difference of logits ratio (N,), -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)) (Croce and Hein, 2020).

    Labels are int64 (N,), of three classes or more.
    """
    place = labels[:, None]
    other = logits.scatter(1, place, -torch.inf).amax(1)
    first, _, third = logits.topk(3, dim=1).values.unbind(1)
    return (other - logits.gather(1, place)[:, 0]) / (first - third + 1e-12)


def is_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N,): whether the class with the largest logit is one of the image's labels, (N,) or (N, K)."""
    return holds(logits.argmax(1), labels)


def holds(predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N,): whether an image's predicted class (N,) is one of its labels, (N,) or (N, K)."""
    if labels.dim() == 2:
        return labels.gather(1, predictions[:, None])[:, 0] > 0
    return predictions == labels


def holds_for_all(predictions: Tensor, labels: Tensor) -> Tensor:
    """Returns bool (N, M): whether the m-th of the predicted classes (M,) is one of the labels of the n-th image."""
    if labels.dim() == 2:
        return labels[:, predictions] > 0
    return labels[:, None] == predictions[None, :]


def per_class(labels: Tensor, n_classes: int) -> Tensor:
    """Returns int64 (K,): how many images have each label."""
    return labels.sum(0, dtype=torch.int64) if labels.dim() == 2 else labels.bincount(minlength=n_classes)
