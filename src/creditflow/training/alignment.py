"""How near a rule's update is to the loss gradient, and its feedback weights to the weights."""

import math

import torch
from torch import Tensor, nn

from creditflow.feedback.apply import feedback_layers
from creditflow.models.build import ImageClassifier


def alignment(
    model: ImageClassifier, view: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor
) -> dict[str, float]:
    """Returns what figure 1 shows, for one batch and the loss of (outputs, labels).

    `update_angle` is the angle in degrees between the gradient that the view's backward gives and the exact one, over all
    parameters below the head, whose own gradient is exact under every rule. `feedback_cosine` is the cosine between V and
    W over all layers; 1 for backpropagation, 0 where the error does not come through weights of W's shape. In eval mode:
    neither running statistics nor dropout take part.
    """
    modes = view.training, model.training
    of_head = {id(parameter) for parameter in model.head.parameters()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in of_head]
    ruled, exact = (_gradient(network.eval(), loss, parameters, images, labels) for network in (view, model))
    cosine = _cosine(list(zip(ruled, exact, strict=True)))
    view.train(modes[0])
    model.train(modes[1])
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
    """Returns the cosine between all first and all second tensors, each joined to one vector; 0 if one of them is zero."""
    product = sum(float((one.double() * other.double()).sum()) for one, other in pairs if one.shape == other.shape)
    lengths = [
        math.sqrt(sum(float(tensor.double().square().sum()) for tensor in side)) for side in zip(*pairs, strict=True)
    ]
    return product / math.prod(lengths) if all(lengths) else 0.0
