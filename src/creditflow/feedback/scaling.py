"""How large the feedback weights of a layer are when a rule is put on: Glorot and Bengio's sigma, or the norm of W.

Both are choices of ours, as no paper gives a scale (docs/methods.md). The size of V decides how large the gradient is
that reaches the layers below.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError, suggestion
from creditflow.feedback.rule import Rule, Scale, frobenius

#: The scales that have a name.
SCALES = ("sigma", "norm")


def check_scale(rule: Rule, scale: object) -> None:
    """Raises UserError for a scale that does not exist, and for a norm under a rule that gives V its size itself."""
    if isinstance(scale, Mapping):
        if not all(isinstance(name, str) and _is_number(norm) for name, norm in scale.items()):
            raise UserError("a scale that is a mapping gives the norm of V, a number, by the name of the layer")
    elif not isinstance(scale, str) or scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}{suggestion(str(scale), SCALES)}")
    if scale != "sigma" and not rule.scaled and not rule.exact:
        raise UserError(
            "this rule gives its feedback weights their size itself, so that another scale would have no effect;"
            " leave scale out"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_names(scale: object, names: Collection[str]) -> None:
    """Raises UserError for a mapping that gives norms for layers which are not there."""
    if isinstance(scale, Mapping) and (surplus := sorted(set(scale) - set(names))):
        raise UserError(f"the scale has a norm for {surplus[0]!r}{suggestion(surplus[0], sorted(names))}")


def layer_scale(name: str, layer: nn.Module, rule: Rule, scale: object) -> Scale:
    """Returns the scale of one layer.

    Args:
        name: the name of the layer in the model.
        layer: the Linear or Conv2d.
        rule: the rule that is put on it.
        scale: a scale that `check_scale` has accepted.

    Raises:
        UserError: the norm of V would be zero or is not finite, or a mapping has none for this layer.
    """
    groups = layer.groups if isinstance(layer, nn.Conv2d) and not rule.direct else 1
    if scale == "sigma":
        return Scale(groups)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(scale, Mapping):
        if name not in scale:
            raise UserError(f"the scale has no norm for the layer {name!r}; give one for each layer")
        norm = float(scale[name])
        if not 0 < norm < math.inf:
            raise UserError(f"the scale of the layer {name!r} is {norm:g}; give a norm above zero that is finite")
    else:
        norm = frobenius(weight.detach())
    if norm == 0 or not math.isfinite(norm):
        state = "all zero" if norm == 0 else "not finite"
        raise UserError(
            f"V cannot have the norm of W in the layer {name!r}, whose weights are {state}; give it other weights, or"
            " use scale 'sigma'"
        )
    return Scale(groups, float(torch.tensor(norm)))  # as a state keeps it, in float32


def feedback_norms(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns the norms of V that a feedback state remembers, by the names of the layers.

    They are those of a rule that draws V again under the scale "norm". With them, `apply_rule` draws other feedback
    weights of the same size. Without such norms in the state, the result is empty.
    """
    return {name.removesuffix(".norm"): float(norm) for name, norm in state.items() if _is_norm(name, norm)}


def _is_norm(name: str, tensor: Tensor) -> bool:
    return name.endswith(".norm") and tensor.dim() == 0
