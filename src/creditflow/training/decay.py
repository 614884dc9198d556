"""In which layers weight decay is stronger than the gradient that a rule's feedback weights bring.

Adam adds `weight_decay * W` to the gradient of W. Where this term is the larger one, a layer hardly learns: its weights
shrink. That happens to whole networks when V is so small, layer by layer, that the error fades on its way down. So it
is measured before an hour is spent on training.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from creditflow.compute.device import no_denormals
from creditflow.core.matched import HEAD_ONLY
from creditflow.data.labels import cross_entropy
from creditflow.data.prepared import Subset
from creditflow.feedback.apply import FeedbackScale, apply_rule, feedback_state
from creditflow.feedback.rule import Rule, frobenius
from creditflow.training.modes import set_training_mode
from creditflow.training.settings import TrainingSettings


@dataclass(frozen=True)
class LayerDecay:
    """The two parts of the direction in which one layer's weights W are about to go.

    Attributes:
        layer: name of the Linear or Conv2d.
        gradient: Frobenius norm of the gradient of W that the rule's backward pass gives.
        decay: Frobenius norm of `weight_decay * W`.
    """

    layer: str
    gradient: float
    decay: float

    @property
    def ratio(self) -> float:
        """`gradient / decay`; infinity for weights that are zero."""
        return self.gradient / self.decay if self.decay else math.inf

    @property
    def is_below(self) -> bool:
        """Whether the gradient lies below the term of weight decay; True for a gradient that is not a number."""
        return not self.gradient >= self.decay


def below_decay(
    model: nn.Module,
    rule: str | Rule,
    images: Tensor,
    labels: Tensor,
    weight_decay: float,
    *,
    generator: torch.Generator | None = None,
    state: Mapping[str, Tensor] | None = None,
    scale: FeedbackScale = "sigma",
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    prepare: Callable[[nn.Module], object] = nn.Module.train,
) -> list[LayerDecay]:
    """Compares, layer by layer, the gradient through a rule's V with the term of weight decay.

    It costs one forward and one backward pass. Neither the model nor the global random numbers are changed: the passes
    are those of a view, which shares the parameters of the model and has buffers of its own.

    Args:
        model: a network that a rule can be put on.
        rule: id of a feedback rule, or a Rule; "bp" for the exact gradient.
        images: a batch (N, ...) as the network takes it, on its device. Batch normalisation needs two images or more.
        labels: the labels (N,) or (N, K) of the images.
        weight_decay: the factor of W in the direction of a step.
        generator, state, scale: the random numbers, state and scale of V, as `apply_rule` takes them. A generator goes
            on from where it is; pass a copy if it is needed again.
        loss: gives a scalar for (outputs, labels).
        prepare: puts the view into the mode in which it is measured; training mode if absent.

    Returns:
        A row for each Linear and Conv2d whose weights are trained, in the order of the model's modules.

    Raises UserError as `apply_rule` does.
    """
    view = apply_rule(model, rule, generator=generator, state=state, scale=scale)
    for module in view.modules():  # a view shares its buffers with the model, and a pass may write into them
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.clone()
    prepare(view)
    weights = _trained_weights(view)
    if not weights:
        return []
    devices = {tensor.device.index for tensor in model.parameters() if tensor.is_cuda}
    with torch.random.fork_rng(sorted(devices)), torch.enable_grad():
        value = loss(view(images).float(), labels)
        gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True)
    return [
        LayerDecay(name, 0.0 if gradient is None else frobenius(gradient), weight_decay * frobenius(weight.detach()))
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    ]


def first_decay(
    model: nn.Module,
    view: nn.Module,
    rule: str,
    data: Subset,
    order: torch.Generator,
    settings: TrainingSettings,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> list[LayerDecay]:
    """Returns `below_decay` for the first batch of a training that is about to begin; nothing without weight decay.

    The images are those of the first batch, without augmentation. The training does not notice.

    Args:
        model: the plain network, on the device of the data.
        view: the view of it under the rule.
        rule: id of the rule, or the name of a control.
        data: the training images.
        order: the generator that gives the order of the images; it is not advanced.
        settings: the hyper-parameters.
        loss: the task.
    """
    if not settings.weight_decay:
        return []
    copied = torch.Generator().set_state(order.get_state())
    chosen = torch.randperm(len(data.labels), generator=copied)[: settings.batch_size]
    with no_denormals():
        rows = below_decay(
            model,
            rule,
            *data.batch(chosen),
            settings.weight_decay,
            state=feedback_state(view),
            loss=loss,
            prepare=lambda network: set_training_mode(network, rule, settings),
        )
    return [row for row in rows if row.layer == "head"] if rule == HEAD_ONLY else rows


def _trained_weights(view: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of the Linear and Conv2d layers that training changes, by the names of the layers."""
    layers = [(name, layer) for name, layer in view.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    weights = {name: layer._parameters.get("weight") for name, layer in layers}
    return {name: weight for name, weight in weights.items() if weight is not None and weight.requires_grad}


def in_words(rows: Sequence[LayerDecay]) -> str | None:
    """Returns, in one line, in which layers the gradient lies below weight decay; None if it does so in none."""
    outweighed = [row for row in rows if row.is_below]
    if not outweighed:
        return None
    least = min(outweighed, key=lambda row: row.ratio)
    return (
        f"at the first batch, in {len(outweighed)} of {len(rows)} layers the gradient is smaller than the term of"
        f" weight decay, so that their weights may mostly shrink; the least is {least.ratio:.1e} of it, in"
        f" {least.layer}"
    )
