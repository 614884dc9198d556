"""Which layers a rule can be put on, and which models are refused because a rule would be without effect there."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.feedback.layers import FEEDBACK_TYPES, FeedbackLayer

#: Where PyTorch and torchao keep their quantised layers. These hold their weights as integers and have no gradient.
_QUANTISED = ("torch.ao.nn.", "torch.nn.quantized", "torch.nn.intrinsic", "torchao.")


def check_model(model: nn.Module) -> None:
    """Raises UserError for a model of which no view can be made, whatever the rule."""
    if not isinstance(model, nn.Module):
        raise UserError(f"a rule is put on a torch.nn.Module, not on {_described(model)}")
    for name, layer in model.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UserError(
                f"{_place(name)} is a scripted or traced module, whose weights a view cannot share;"
                " use the module that it was made from"
            )


def _described(model: object) -> str:
    return f"the class {model.__name__}; call it first" if isinstance(model, type) else type(model).__name__


def _place(name: str) -> str:
    return f"layer {name!r}" if name else "the model"


def replaceable_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Returns name and module of each layer that a rule can be put on.

    Raises UserError for a layer that looks as if a rule could be put on it, but on which a rule would be without
    effect or hold for a part only; and for a model without any layer for a rule.
    """
    layers = []
    for name, layer in model.named_modules():
        if isinstance(layer, FeedbackLayer):
            raise UserError("the model has a rule already; apply the rule to the plain model")
        reason = _objection(layer)
        if reason is not None:
            raise UserError(
                f"no feedback rule can be put on {_place(name)} of type {type(layer).__name__}{reason};"
                " use Linear and Conv2d themselves"
            )
        if type(layer) in FEEDBACK_TYPES:
            layers.append((name, layer))
    return layers


def _objection(layer: nn.Module) -> str | None:
    """Returns why a rule cannot be put on a layer, as the end of a sentence; None for all other layers."""
    if type(layer).__module__.startswith(_QUANTISED):
        return ", whose weight is quantised"
    if type(layer) not in FEEDBACK_TYPES:
        # These layers use their weights in another way. A rule for a part of them would be neither rule nor BP.
        return "" if isinstance(layer, nn.MultiheadAttention | nn.Linear | nn.Conv2d) else None
    weight = layer._parameters.get("weight")
    if not isinstance(weight, Tensor):
        return ", whose weight is computed from other tensors (weight or spectral normalisation, pruning)"
    if weight.is_complex():
        return ", whose weight is complex"
    if weight.is_meta:
        return ", whose weight is on the device meta and has no values yet"
    if "forward" in vars(layer):
        return ", whose forward was replaced"
    return None


def non_leaves(model: nn.Module) -> Iterator[Tensor]:
    """Yields the tensors that modules keep as attributes and that follow from others by autograd.

    `copy.deepcopy` refuses such tensors. The old form of weight normalisation keeps one, and computes it again in each
    pass.
    """
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor) and not value.is_leaf)
