"""Losses of attacks that do not change if all logits are multiplied by the same positive number."""

import torch
from torch import Tensor

from creditflow.data.labels import cross_entropies

#: Standard deviation of the logits over the classes, after they are brought to a fixed scale. On LeNet-5 and
#: Fashion-MNIST the attack is strongest between 2 and 8, as the true gradient then points at the nearest class.
_DEVIATION = 4.0

#: Largest distance of a logit from the mean after that. With a gap below 80, no probability vanishes in float32.
_LARGEST = 40.0

#: A logit counts for the scale down to so many times the distance of the largest one from the median, below the median.
_FAR = 100.0

#: As long as so many logits count. Of fewer, two that are nearly equal would make the others seem far.
_FEWEST = 4


def at_own_scale(logits: Tensor) -> Tensor:
    """Returns logits (N, K) with the mean 0 and the standard deviation 4 over the K classes, image by image.

    Where a logit would be beyond 40 then, the largest one is 40 instead, so that no softmax saturates. The gradient
    takes mean and divisor for constants, so that its direction is that of the cross-entropy of softer or sharper
    probabilities. Logits that are all equal give zeros.
    """
    least = torch.finfo(logits.dtype).tiny
    with torch.no_grad():
        # A class that a model has switched off, with a logit such as -1e6, must not set the scale of the others.
        middle, top = logits.median(1, keepdim=True).values, logits.amax(1, keepdim=True)
        counted = logits >= middle - _FAR * (top - middle)
        counted |= counted.sum(1, keepdim=True) < _FEWEST
        n_counted = counted.sum(1, keepdim=True)
        mean = torch.where(counted, logits, 0).sum(1, keepdim=True) / n_counted
        distance = torch.where(counted, logits - mean, 0)
        largest = distance.abs().amax(1, keepdim=True).clamp_min(least)
        # The sizes are brought to 1 first: squares of very large or small logits would overflow or vanish.
        deviation = ((distance / largest).square().sum(1, keepdim=True) / n_counted).sqrt().clamp_min(least)
        factor = (_DEVIATION / deviation).clamp_max(_LARGEST)
    return (logits - mean) / largest * factor


def scaled_cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross-entropy (N,) of logits (N, K) at a fixed scale; labels are int64 (N,)."""
    return cross_entropies(at_own_scale(logits), labels)


def targeted_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the targeted difference of logits ratio (N,) (Croce and Hein, 2020), aimed at the likeliest other class.

    It is -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2). Labels are int64 (N,), of four classes or more.
    """
    place = labels[:, None]
    other = logits.scatter(1, place, -torch.inf).amax(1)
    first, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    return (other - logits.gather(1, place)[:, 0]) / (first - (third + fourth) / 2 + 1e-12)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the largest other logit minus the label's one (N,); it is positive for a misclassified image."""
    place = labels[:, None]
    return logits.scatter(1, place, -torch.inf).amax(1) - logits.gather(1, place)[:, 0]
