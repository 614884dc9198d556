"""How close the update of a rule is to the gradient of the loss, and how close V is to W."""

import math

import torch
from torch import Tensor, nn

from creditflow.feedback.apply import feedback_layers
from creditflow.models.build import ImageClassifier, body_parameters


def alignment(
    model: ImageClassifier, view: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Measures both for one batch, in eval mode: neither running statistics nor dropout take part.

    Args:
        model: the plain network, whose gradients are exact.
        view: the view of it under the rule, from `apply_rule`.
        loss: gives the loss of (outputs, labels).
        images, labels: the batch, as `Subset.batch` returns it.

    Returns:
        `update_angle`, the angle in degrees between the gradient that the view's backward pass gives and the exact
        gradient, over all parameters below the head (the gradient of the head is exact under every rule).
        `feedback_cosine`, the cosine between V and W over all layers: 1 for backpropagation, 0 where V does not have
        the shape of W.
    """
    view_mode, model_mode = view.training, model.training
    parameters = body_parameters(model)
    ruled, exact = (_gradient(network.eval(), loss, parameters, images, labels) for network in (view, model))
    cosine = _cosine(list(zip(ruled, exact, strict=True)))
    view.train(view_mode)
    model.train(model_mode)
    return {
        "update_angle": math.degrees(math.acos(max(-1.0, min(1.0, cosine)))),
        "feedback_cosine": _feedback_cosine(view),
    }


def _gradient(
    network: nn.Module, loss: nn.Module, parameters: list[nn.Parameter], images: Tensor, labels: Tensor
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss(network(images), labels), parameters)


def _feedback_cosine(view: nn.Module) -> float:
    layers = [layer for _, layer in feedback_layers(view)]
    if not layers:
        return 1.0
    return _cosine([(layer.feedback_weight(), layer.weight.detach()) for layer in layers])


def _cosine(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Returns the cosine between all left and all right tensors of the pairs, each side joined to one vector.

    It is 0 if one side is zero. Pairs of tensors of different shapes add nothing to the inner product.
    """
    product = sum(float((left.double() * right.double()).sum()) for left, right in pairs if left.shape == right.shape)
    lengths = [
        math.sqrt(sum(float(tensor.double().square().sum()) for tensor in side)) for side in zip(*pairs, strict=True)
    ]
    return product / math.prod(lengths) if all(lengths) else 0.0
