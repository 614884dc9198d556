"""What a feedback rule is: how the feedback weight V of a layer follows its forward weight W."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.core.errors import UserError

#: What a rule remembers of one layer: named tensors, saved beside the model.
State = dict[str, Tensor]


def no_state(weight: Tensor, generator: torch.Generator | None) -> State:
    """The initial state of a rule that remembers nothing."""
    return {}


def rows_of(state: State, rows: slice) -> State:
    """Returns some rows of a state; scalars stay."""
    return {name: tensor[rows] if tensor.dim() else tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class Rule:
    """A rule that replaces the feedback path of Linear and Conv2d layers.

    In the backward pass the error goes down through V instead of W (V has W's shape, so the paper's matrix "V" is
    our V transposed): delta_{l-1} = V_l^T delta_l * f'(a_{l-1}), while dW_l = delta_l h_{l-1}^T keeps its form.

    A state holds tensors of V's shape and, if need be, scalars; all that a rule will ever draw follows from it, so
    that a saved state continues as if never interrupted, in whatever order layers are visited.

    Attributes:
        feedback_weight: (W, state) -> V of W's shape; W is detached.
        initial_state: (W, generator) -> state, drawn once when the rule is put on a model.
        after_update: (W, state) -> state, called once after each change of W; None if nothing changes. It may write
            into the tensors of the old state.
        redraws: True if V is random and each update draws it anew, so that the attacker's gradient has an expectation.
        elementwise: True if each element of V follows from the elements of W and of the state at its place and from
            scalars. A large V then never exists as a whole: `feedback_weight` is given some rows of W and of the state at a
            time, and as a third argument, `out`, a tensor to put V in (or None).
        direct: True if what goes down is the error at the output, e = dL/dlogits of shape (N, K), instead of the layer's
            own. V then has the shape (K, inputs, ...), and `initial_state` is given an empty tensor of that shape for W.
        exact: True only for backpropagation, which leaves the layers alone.
    """

    feedback_weight: Callable[..., Tensor]
    initial_state: Callable[[Tensor, torch.Generator | None], State] = no_state
    after_update: Callable[[Tensor, State], State] | None = None
    redraws: bool = False
    elementwise: bool = False
    direct: bool = False
    exact: bool = False


def xavier_sigma(weight: Tensor) -> float:
    """Returns Glorot and Bengio's (2010) standard deviation, sqrt(2 / (fan_in + fan_out)), for a weight's shape.

    A fan is the number of channels times the kernel area; for a grouped convolution the weight's own second
    dimension (channels per group) counts.
    """
    area = math.prod(weight.shape[2:])
    return math.sqrt(2.0 / ((weight.shape[0] + weight.shape[1]) * area))


def xavier_bound(weight: Tensor) -> float:
    """Returns a = sqrt(3) sigma, so that U(-a, a) has the standard deviation `xavier_sigma`."""
    return math.sqrt(3.0) * xavier_sigma(weight)


def xavier_uniform(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws U(-a, a), a = `xavier_bound`, of the weight's shape, in its memory format.

    Raises UserError without a generator: random numbers never come from torch's global state here.
    """
    if generator is None:
        raise UserError("this rule draws random numbers: pass generator=torch.Generator().manual_seed(...)")
    uniform = torch.rand(weight.shape, generator=generator, device=generator.device, dtype=torch.float32)
    return torch.empty_like(weight).copy_((2 * uniform - 1) * xavier_bound(weight))


def random_magnitude(weight: Tensor, generator: torch.Generator | None) -> State:
    """Draws M = |xavier_uniform|, that is U(0, sqrt(3) sigma), of the weight's shape."""
    return {"magnitude": xavier_uniform(weight, generator).abs_()}


def sign_concordant(weight: Tensor, state: State, out: Tensor | None = None) -> Tensor:
    """Returns M * sign(W); sign(0) = 0."""
    return torch.sign(weight, out=out).mul_(state["magnitude"])
