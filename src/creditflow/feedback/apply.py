"""Feedback rules for any torch model: `apply_rule` and the state that it leaves to be saved."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.error import OutputTap
from creditflow.feedback.layers import FEEDBACK_TYPES, FeedbackLayer
from creditflow.feedback.rule import Rule, State, rows_of

__all__ = ["FeedbackLayer", "Rule", "State", "apply_rule", "feedback_layers", "feedback_state", "get_rule"]


def get_rule(name: str) -> Rule:
    """Returns the rule with this id (a file in `feedback/rules`). Raises UserError if there is none."""
    rule: Rule = plugins.load("rule", name).RULE
    return rule


def apply_rule(
    model: nn.Module,
    rule: str | Rule,
    *,
    generator: torch.Generator | None = None,
    state: Mapping[str, Tensor] | None = None,
    outputs: int | None = None,
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
        outputs: K of the model's outputs (N, K), for a rule that sends the error at the output to every layer (DFA);
            None means that of the last Linear or Conv2d, in the order in which the model's parts were assigned.

    Raises:
        UserError: unknown rule; a layer the rule cannot be put on; state of another model; neither generator nor
            state for a rule that draws random numbers. And when the view of a direct rule is called: outputs of another
            shape than (N, K); when it is differentiated: a loss that does not come from the view's output.
    """
    rule = get_rule(rule) if isinstance(rule, str) else rule
    view = _view(model)
    if rule.exact:
        return view
    known = dict(state) if state is not None else None
    layers = _replaceable(view)
    tap = _tapped(view, layers, outputs) if rule.direct else None
    for name, layer in layers:
        like = _template(layer, tap)
        layer_state = rule.initial_state(like, generator) if known is None else _take(known, name, like)
        layer.__class__ = FEEDBACK_TYPES[type(layer)]
        assert isinstance(layer, FeedbackLayer)
        layer.put_rule(rule, layer_state, tap)
        _check(name, layer, like)
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
        for key, tensor in layer.present_state().items():
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
            raise UserError(
                f"no feedback rule can be put on layer {name!r} of type {type(layer).__name__}; use Linear and Conv2d themselves"
            )
    return found


def _tapped(view: nn.Module, layers: list[tuple[str, nn.Module]], outputs: int | None) -> OutputTap:
    """Puts a tap on the view's output."""
    if outputs is None:
        if not layers:
            raise UserError(
                "this rule needs the number of outputs, and the model has no Linear or Conv2d to tell it; pass outputs=K"
            )
        last = layers[-1][1].weight
        assert isinstance(last, Tensor)
        outputs = len(last)
    tap = OutputTap(outputs)
    tap.put_on(view)
    return tap


def _template(layer: nn.Module, tap: OutputTap | None) -> Tensor:
    """Returns a tensor of the shape, type and device of the layer's V: W, or for a direct rule an empty one."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if tap is None:
        return weight.detach()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return weight.detach().new_empty(tap.outputs, weight.shape[1] * groups, *weight.shape[2:])


def _check(name: str, layer: FeedbackLayer, like: Tensor) -> None:
    """Raises UserError if the rule does not find its state, or does not give the V that it declares."""
    rule, weight, state = layer.rule, layer.weight.detach(), layer.state
    try:
        feedback = rule.feedback_weight(weight, state)
    except KeyError as error:
        raise UserError(f"the feedback state has no {f'{name}.{error.args[0]}'!r}, which this rule needs") from error
    if feedback.shape != like.shape:
        raise UserError(f"the rule's V for layer {name!r} has shape {list(feedback.shape)}, not {list(like.shape)}")
    if rule.elementwise:
        row = rule.feedback_weight(weight[:1], rows_of(state, slice(1)), torch.empty_like(weight[:1]))
        if not torch.allclose(row, feedback[:1], equal_nan=True):
            raise UserError(
                f"the rule declares elementwise=True, but its V for the first row of layer {name!r} depends on other rows"
            )


def _take(state: dict[str, Tensor], layer_name: str, like: Tensor) -> State:
    """Moves one layer's tensors out of a collected state, as copies: a rule may write into its state."""
    prefix = f"{layer_name}."
    taken = {}
    for key in [key for key in state if key.startswith(prefix) and "." not in key[len(prefix) :]]:
        tensor = state.pop(key)
        if tensor.dim() > 0 and tensor.shape != like.shape:
            raise UserError(
                f"the feedback state's {key!r} has shape {list(tensor.shape)}, the layer {list(like.shape)}"
            )
        taken[key[len(prefix) :]] = torch.empty_like(like).copy_(tensor) if tensor.dim() > 0 else tensor.clone()
    return taken
