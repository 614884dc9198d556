"""Feedback rules for any torch model: `apply_rule` and the state that it leaves to be saved."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from creditflow import plugins
from creditflow.errors import UserError
from creditflow.learning.layers import FEEDBACK_TYPES, FeedbackLayer
from creditflow.learning.rule import Rule, State

__all__ = ["FeedbackLayer", "Rule", "State", "apply_rule", "feedback_layers", "feedback_state", "get_rule"]


def get_rule(name: str) -> Rule:
    """Returns the rule with this id (a file in `learning/rules`). Raises UserError if there is none."""
    rule: Rule = plugins.load("rule", name).RULE
    return rule


def apply_rule(
    model: nn.Module,
    rule: str | Rule,
    *,
    generator: torch.Generator | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> nn.Module:
    """Returns a view of the model whose Linear and Conv2d layers send the error through the rule's feedback weights.

    Other layers keep their exact backward, also those with weights (batch normalisation, Conv1d, transposed
    convolutions). Refused are layers that read a Linear's weight in ways of their own, where the rule would hold in
    part only: attention, and subclasses of Linear and Conv2d, weight normalisation included.

    The view shares every parameter and buffer with `model`, so training the view trains the model, while `model`
    itself keeps its exact gradients: attack the one or the other to choose the attacker's gradient. Move the model to
    its device first.

    Args:
        model: any module; not changed.
        rule: the id of a rule, or a Rule.
        generator: source of the rule's random numbers; on CUDA models a CUDA generator spares a copy per redraw.
        state: what `feedback_state` returned for a model of this shape; drawn from `generator` if None.

    Raises:
        UserError: unknown rule; a layer the rule cannot be put on; state of another model; neither generator nor
            state for a rule that draws random numbers.
    """
    rule = get_rule(rule) if isinstance(rule, str) else rule
    view = _view(model)
    if rule.exact:
        return view
    known = dict(state) if state is not None else None
    for name, layer in _replaceable(view):
        layer_state = _initial(rule, layer, generator) if known is None else _take(known, name, layer)
        layer.__class__ = FEEDBACK_TYPES[type(layer)]
        assert isinstance(layer, FeedbackLayer)
        layer.put_rule(rule, layer_state)
        try:
            layer.feedback_weight()
        except KeyError as error:
            raise UserError(f"the feedback state has no {f'{name}.{error.args[0]}'!r}, which this rule needs") from error
    if known:
        raise UserError(f"the feedback state has tensors that this model has not, such as {next(iter(known))!r}")
    return view


def feedback_layers(view: nn.Module) -> Iterator[tuple[str, FeedbackLayer]]:
    """Yields the name and module of every layer that a rule was put on."""
    for name, layer in view.named_modules():
        if isinstance(layer, FeedbackLayer):
            yield name, layer


def feedback_state(view: nn.Module) -> dict[str, Tensor]:
    """Returns the state of all layers as {"<layer>.<tensor>": tensor}, up to date with the present weights.

    A redraw that a parameter update has made due is done first.
    """
    collected = {}
    for name, layer in feedback_layers(view):
        layer.feedback_weight()
        for key, tensor in layer.state.items():
            collected[f"{name}.{key}"] = tensor.detach().clone()
    return collected


def _view(model: nn.Module) -> nn.Module:
    """Copies the module structure; parameters and buffers stay the same objects."""
    shared: dict[int, object] = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    return copy.deepcopy(model, shared)


def _replaceable(view: nn.Module) -> list[tuple[str, nn.Module]]:
    found = []
    for name, layer in view.named_modules():
        if type(layer) in FEEDBACK_TYPES:
            found.append((name, layer))
        elif isinstance(layer, FeedbackLayer):
            raise UserError("the model has a rule already; apply the rule to the plain model")
        elif isinstance(layer, nn.MultiheadAttention | nn.Linear | nn.Conv2d):
            # These read their weights in ways of their own: replacing only a part would be neither rule nor BP.
            raise UserError(f"no feedback rule can be put on layer {name!r} of type {type(layer).__name__}")
    return found


def _initial(rule: Rule, layer: nn.Module, generator: torch.Generator | None) -> State:
    assert isinstance(layer.weight, Tensor)
    return rule.initial_state(layer.weight.detach(), generator)


def _take(state: dict[str, Tensor], layer_name: str, layer: nn.Module) -> State:
    """Moves one layer's tensors out of a collected state."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    prefix = f"{layer_name}."
    taken = {}
    for key in [key for key in state if key.startswith(prefix) and "." not in key[len(prefix) :]]:
        tensor = state.pop(key)
        if tensor.dim() > 0:
            tensor = tensor.to(device=weight.device, dtype=weight.dtype)
            if tensor.shape != weight.shape:
                raise UserError(f"the feedback state's {key!r} has shape {list(tensor.shape)}, the layer {list(weight.shape)}")
        taken[key[len(prefix) :]] = tensor
    return taken
