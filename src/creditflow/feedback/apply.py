"""Feedback rules for any torch model: `apply_rule`, and the feedback state that is saved beside a model."""

import copy
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from creditflow.core import plugins
from creditflow.core.errors import UserError, one_line
from creditflow.core.matched import matched_to, trained_by
from creditflow.feedback.error import OutputTap
from creditflow.feedback.layers import FEEDBACK_TYPES, FeedbackLayer
from creditflow.feedback.proof import Proof
from creditflow.feedback.replaceable import check_model, non_leaves, replaceable_layers
from creditflow.feedback.rule import Rule, State
from creditflow.feedback.scaling import check_names, check_scale, layer_scale

__all__ = ["FeedbackLayer", "Rule", "State", "apply_rule", "feedback_layers", "feedback_state", "get_rule"]

#: How large V is: with elements of Glorot and Bengio's standard deviation, or with the norm of W; or the norm of V by
#: the name of the layer.
FeedbackScale = Literal["sigma", "norm"] | Mapping[str, float]


def get_rule(name: str) -> Rule:
    """Returns the rule with this id (a file in `feedback/rules`), or the one that trains `bp_matched_<rule>`.

    Raises UserError if there is none.
    """
    if (matched := matched_to(name)) is not None:
        plugins.check("rule", matched)
    rule: Rule = plugins.load("rule", trained_by(name)).RULE
    return rule


def apply_rule(
    model: nn.Module,
    rule: str | Rule,
    *,
    generator: torch.Generator | None = None,
    state: Mapping[str, Tensor] | None = None,
    outputs: int | None = None,
    scale: FeedbackScale = "sigma",
) -> nn.Module:
    """Returns a view of the model whose Linear and Conv2d layers send the error through the rule's feedback weights.

    All other layers keep their exact backward, also those that have weights (batch normalisation, Conv1d, transposed
    convolutions). What a rule could not hold for as a whole is refused: attention, subclasses of Linear and Conv2d
    (parametrisations make such a subclass), weights that follow from other tensors (the old forms of weight and
    spectral normalisation, pruning), quantised layers, scripted and traced modules, and models without Linear and
    Conv2d. A model that takes a weight out of its layer and uses it itself, such as a tied autoencoder, is found in
    the first pass with gradients. Where `torch.compile` is in use, a copy of the view makes this pass beforehand.

    The view shares every parameter and buffer with `model`: whoever trains the view trains the model. The gradients of
    `model` stay exact. So an attack on the view uses the gradient of the rule, and an attack on `model` the exact one.
    Move the model to its device first.

    A view can be pickled, saved by `torch.save`, copied, compiled, checkpointed and moved; it takes batches of any
    size, half precision, frozen parameters and `torch.func.functional_call`. Under every rule but BP, whose layers are
    those of the model, these things are refused by a UserError in one line: transforms of `torch.func` (grad, vmap,
    jvp) together with forward-mode gradients; second derivatives (`create_graph=True`), as the gradient of a rule is no
    derivative of a function; what captures a graph (`torch.jit`, `torch.export`, `torch.fx`), which would lose the
    rule; and a parametrisation or pruning of a layer that has a rule. `torch.compile(fullgraph=True)` does not work.
    Under KP, V learns nothing in pure bfloat16, whose rounding takes its decay away.

    Args:
        model: any module. It is not changed.
        rule: the id of a rule, or a Rule.
        generator: where the rule gets its random numbers. For a model on CUDA, a CUDA generator saves copies, and
            one of the CPU gives the same feedback weights as on a CPU.
        state: what `feedback_state` returned for a model of this shape; if None, it is drawn from `generator`.
        outputs: K of the outputs (N, K), for a rule that sends the error at the output to every layer (DFA). None means
            the number of outputs of the last Linear or Conv2d, in the order in which the parts of the model were
            assigned.
        scale: how large V is when it is drawn; a `state` holds a V that has its scale already. "sigma": its elements
            have the standard deviation sqrt(2 / (fan_in + fan_out)), where a fan of a grouped convolution is that of
            one group. "norm": in each layer the Frobenius norm of V is that of W, ||V|| = ||W||, as W is now. What a
            rule draws again later (brSF) has this norm, too. All rules of this package take both; under BP, V is W, so
            that both mean the same. A mapping gives the norm of V for each layer by its name, see `feedback_norms`.

    Raises:
        UserError: the rule is unknown; the model is no module, or is one of those that are refused; the state is that
            of another model; the rule draws random numbers and there is neither a generator nor a state; the scale is
            unknown; or V is to have the norm of a W that is zero, or the rule gives V its size itself. The first
            passes of the view raise it if a layer with a rule takes no part. The view of a direct rule raises it, too:
            when it is called, if its outputs do not have the shape (N, K); and in the backward pass, if the loss does
            not follow from the output of the view.
    """
    rule = _as_rule(rule)
    check_scale(rule, scale)
    check_model(model)
    if not rule.exact:
        replaceable_layers(model)  # what is refused is refused before anything is copied
    view = _view(model)
    if rule.exact:
        return view
    known = _as_state(state)
    layers = replaceable_layers(view)
    tap = _tapped(view, layers, outputs) if rule.direct else None
    if not layers:
        raise UserError("the model has no Linear or Conv2d that a rule could be put on")
    check_names(scale, [name for name, _ in layers])
    for name, layer in layers:
        like = _template(layer, tap)
        if known is None:
            layer_state = rule.first_state(like, generator, layer_scale(name, layer, rule, scale))
        else:
            layer_state = _take(known, name, like)
        layer.__class__ = FEEDBACK_TYPES[type(layer)]
        assert isinstance(layer, FeedbackLayer)
        layer.put_rule(rule, layer_state, tap)
        _check(name, layer, like)
    if known:
        raise UserError(f"the feedback state has tensors that this model has not, such as {next(iter(known))!r}")
    Proof().put_on(view)
    return view


def _as_rule(rule: object) -> Rule:
    if isinstance(rule, str):
        return get_rule(rule)
    if not isinstance(rule, Rule):
        raise UserError(f"a rule is the id of a rule or a Rule, not {type(rule).__name__}")
    return rule


def _as_state(state: object) -> dict[str, Tensor] | None:
    """Returns a copy of the state, from which tensors can be taken; None for none."""
    if state is None:
        return None
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"the state must be what feedback_state returned, tensors by name, not {type(state).__name__}")
    return dict(state)


def feedback_layers(view: nn.Module) -> Iterator[tuple[str, FeedbackLayer]]:
    """Yields the name and module of every layer that a rule was put on."""
    for name, layer in view.named_modules():
        if isinstance(layer, FeedbackLayer):
            yield name, layer


def feedback_state(view: nn.Module) -> dict[str, Tensor]:
    """Returns the state of all layers as {"<layer>.<tensor>": tensor}, up to date with the present weights.

    If the weights have changed since the rule last looked, the rule updates its state first. Raises UserError for
    something that is no module.
    """
    check_model(view)
    collected = {}
    for name, layer in feedback_layers(view):
        for key, tensor in layer.present_state().items():
            collected[f"{name}.{key}"] = tensor.detach().clone()
    return collected


def _view(model: nn.Module) -> nn.Module:
    """Returns a copy of the structure of modules whose parameters and buffers are the same objects.

    Raises UserError if the model keeps something that cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers(), *non_leaves(model)]
    shared: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    try:
        return copy.deepcopy(model, shared)
    except Exception as error:  # modules copy themselves by code of their own, which raises errors of any type
        raise UserError(
            f"no view can be made of the model, as it cannot be copied ({one_line(error)});"
            " keep files, locks and generators out of the modules"
        ) from error


def _tapped(view: nn.Module, layers: list[tuple[str, nn.Module]], outputs: int | None) -> OutputTap:
    """Puts a tap on the output of the view, and returns it. Raises UserError if the number of outputs is not known."""
    if outputs is None:
        if not layers:
            raise UserError(
                "this rule needs the number of outputs, and the model has no Linear or Conv2d to tell it;"
                " pass outputs=K"
            )
        last = layers[-1][1].weight
        assert isinstance(last, Tensor)
        outputs = len(last)
    tap = OutputTap(outputs)
    tap.put_on(view)
    return tap


def _template(layer: nn.Module, tap: OutputTap | None) -> Tensor:
    """Returns a tensor of the shape, type and device of V: W itself, or for a direct rule an empty tensor."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if tap is None:
        return weight.detach()
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return weight.detach().new_empty(tap.outputs, weight.shape[1] * groups, *weight.shape[2:])


def _check(name: str, layer: FeedbackLayer, like: Tensor) -> None:
    """Raises UserError if the rule misses a tensor of its state, or if its V is not as the rule declares."""
    rule, weight, state = layer.rule, layer.weight.detach(), layer.state
    try:
        feedback = rule.feedback_weight(weight, state)
    except KeyError as error:
        raise UserError(f"the feedback state has no {f'{name}.{error.args[0]}'!r}, which this rule needs") from error
    if feedback.shape != like.shape:
        raise UserError(f"the rule's V for layer {name!r} has shape {list(feedback.shape)}, not {list(like.shape)}")
    if rule.elementwise:
        row = rule.feedback_rows(weight, state, slice(1), torch.empty_like(weight[:1]))
        if not torch.allclose(row, feedback[:1], equal_nan=True):
            raise UserError(
                f"the rule declares elementwise=True,"
                f" but its V for the first row of layer {name!r} depends on other rows"
            )


def _take(state: dict[str, Tensor], layer_name: str, like: Tensor) -> State:
    """Takes the tensors of one layer out of a state and returns copies, as a rule may write into its state."""
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
