"""What a feedback rule is: how the feedback weight V of a layer follows its forward weight W."""

import math
from dataclasses import dataclass
from typing import Protocol, Self, cast

import torch
from torch import Tensor

from creditflow.core.errors import UserError

#: What a rule remembers of one layer: named tensors, saved beside the model.
State = dict[str, Tensor]


@dataclass(frozen=True)
class Scale:
    """How large the V of a layer is when a rule is put on.

    Attributes:
        groups: number of groups of a convolution. A fan counts the channels of one group, as if each group were a layer
            of its own. It is 1 for other layers, and for a direct rule, whose V has no groups.
        norm: the Frobenius norm of V; None for elements of the standard deviation `xavier_sigma`.
    """

    groups: int = 1
    norm: float | None = None

    def to_state(self) -> State:
        """Returns scalars for the state of a rule that draws V again; none for what V's shape tells by itself."""
        groups = {} if self.groups == 1 else {"groups": torch.tensor(self.groups)}
        return groups if self.norm is None else groups | {"norm": torch.tensor(self.norm)}

    @classmethod
    def of_state(cls, state: State) -> Self:
        """Returns the scale that `to_state` put into a state."""
        norm = float(state["norm"]) if "norm" in state else None
        return cls(int(state["groups"]) if "groups" in state else 1, norm)


#: The scale of layers without groups that is used where nobody asks for another one.
SIGMA = Scale()


class FeedbackWeight(Protocol):
    """How V follows from W."""

    def __call__(self, weight: Tensor, state: State, /) -> Tensor:
        """Returns V, of the shape of W.

        Args:
            weight: W, detached. It must not be changed.
            state: what the rule remembers of the layer. It must not be changed.
        """


class RowsOfFeedbackWeight(Protocol):
    """How some rows of V follow from the same rows of W, for a rule that is declared `elementwise`."""

    def __call__(self, weight: Tensor, state: State, out: Tensor | None = None, /) -> Tensor:
        """Returns rows of V.

        Args:
            weight: rows of W, detached, or all of W. They must not be changed.
            state: the same rows of each tensor of the state, and its scalars. They must not be changed.
            out: a tensor of the shape of `weight` to put the rows of V in; None for a new one.
        """


class InitialState(Protocol):
    """How the state of a layer begins."""

    def __call__(self, weight: Tensor, generator: torch.Generator | None, /) -> State:
        """Returns the state of a layer; called once for each layer when the rule is put on a model.

        Args:
            weight: W, detached; for a direct rule an empty tensor of the shape of V.
            generator: the only source of random numbers; None if the user has given none.

        Raises:
            UserError: the rule draws random numbers, and there is no generator.
        """


class ScaledInitialState(Protocol):
    """How the state of a layer begins, for a rule that is declared `scaled`."""

    def __call__(self, weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA, /) -> State:
        """Returns the state of a layer, as an `InitialState` does, so that V has the given scale."""


class AfterUpdate(Protocol):
    """How the state of a layer follows a change of W."""

    def __call__(self, weight: Tensor, state: State, /) -> State:
        """Returns the new state; called once after each change of W.

        Args:
            weight: the new W, detached. It must not be changed.
            state: the old state. The rule may write into its tensors and return them.
        """


def no_state(weight: Tensor, generator: torch.Generator | None) -> State:
    """Returns the initial state of a rule that remembers nothing."""
    return {}


def remembered_weight(weight: Tensor, state: State) -> Tensor:
    """Returns the V that the state holds, for a rule whose V does not follow from W."""
    return state["feedback_weight"]


def rows_of(state: State, rows: slice) -> State:
    """Returns a state with some rows of each tensor; scalars stay as they are."""
    return {name: tensor[rows] if tensor.dim() else tensor for name, tensor in state.items()}


@dataclass(frozen=True)
class Rule:
    """A rule that sends the error of Linear and Conv2d layers back through feedback weights V.

    In the backward pass the error goes down through V instead of W: delta_{l-1} = V_l^T delta_l * f'(a_{l-1}), while
    dW_l = delta_l h_{l-1}^T keeps its form. V has the shape of W; the matrix that the paper calls V is the transpose
    of this V.

    A state holds tensors of the shape of V and, if need be, scalars. All random numbers that a rule will ever draw
    follow from its state. So a saved state goes on as if it had never been interrupted, whatever the order in which
    layers are visited.

    Give functions that a file defines by name, not lambdas: a view is pickled together with its rule.

    Attributes:
        feedback_weight: gives V for W and a state.
        initial_state: gives the state of a layer when the rule is put on a model.
        after_update: gives the new state of a layer after each change of W; None if the state never changes.
        scaled: True if `initial_state` is a `ScaledInitialState`. Other rules themselves give V its size.
        redraws: True if V is random and is drawn again for each update. The gradient that an attacker sees then has an
            expectation.
        elementwise: True if each element of V depends only on the matching elements of W and of the state, and on
            scalars. `feedback_weight` is then a `RowsOfFeedbackWeight`, so that a large V never exists as a whole.
        direct: True if each layer gets the error at the output, e = dL/dlogits of shape (N, K), instead of the error of
            the layer above. V then has the shape (K, inputs, ...).
        exact: True only for backpropagation, which leaves the layers as they are.
        title: how papers write the rule's name; without one its id is shown. This fact and the following ones are for
            tables and figures, which read them from the rule's file without importing it: write them out in the call.
        order: place of the rule in tables and figures, from small to large; rules without one come last, by their ids.
        color, marker: how figures draw the rule, as matplotlib writes a colour and a marker; without them it gets a
            spare style.
        transported_bits: how many bits of each forward weight V uses: 32 for all of a float32, 1 for its sign, 0
            for nothing; None where nobody has said it.
    """

    feedback_weight: FeedbackWeight | RowsOfFeedbackWeight
    initial_state: InitialState = no_state
    after_update: AfterUpdate | None = None
    scaled: bool = False
    redraws: bool = False
    elementwise: bool = False
    direct: bool = False
    exact: bool = False
    title: str | None = None
    order: float | None = None
    color: str | None = None
    marker: str | None = None
    transported_bits: int | None = None

    def first_state(self, weight: Tensor, generator: torch.Generator | None, scale: Scale) -> State:
        """Returns the state of a layer at the start; the scale is for a `scaled` rule only.

        Raises UserError if the rule draws random numbers, and there is no generator.
        """
        if not self.scaled:
            return self.initial_state(weight, generator)
        return cast(ScaledInitialState, self.initial_state)(weight, generator, scale)

    def feedback_rows(self, weight: Tensor, state: State, rows: slice, out: Tensor) -> Tensor:
        """Returns some rows of V, put into the first rows of `out`; for an `elementwise` rule only.

        `weight` is the whole W, and `state` the whole state.
        """
        part = weight[rows]
        give_rows = cast(RowsOfFeedbackWeight, self.feedback_weight)
        return give_rows(part, rows_of(state, rows), out[: len(part)])


def xavier_sigma(weight: Tensor, groups: int = 1) -> float:
    """Returns the standard deviation of Glorot and Bengio (2010), sqrt(2 / (fan_in + fan_out)), for a weight.

    A fan is the number of channels times the area of the kernel. In a grouped convolution it counts the channels of one
    group: the weight has the shape (out, in / groups, height, width), so its second dimension does so by itself.
    """
    area = math.prod(weight.shape[2:])
    return math.sqrt(2.0 / ((weight.shape[0] // groups + weight.shape[1]) * area))


def xavier_bound(weight: Tensor, groups: int = 1) -> float:
    """Returns a = sqrt(3) sigma, so that U(-a, a) has the standard deviation `xavier_sigma`."""
    return math.sqrt(3.0) * xavier_sigma(weight, groups)


def xavier_uniform(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> Tensor:
    """Draws from U(-a, a) with a = `xavier_bound`; returns a tensor of the shape and memory format of the weight.

    Where the scale has a norm, the tensor is multiplied by what gives it this norm.

    Raises UserError without a generator: random numbers never come from the global state of torch here.
    """
    if generator is None:
        raise UserError("this rule draws random numbers: pass generator=torch.Generator().manual_seed(...)")
    uniform = torch.rand(weight.shape, generator=generator, device=generator.device, dtype=torch.float32)
    bound = xavier_bound(weight, scale.groups)
    return with_norm(torch.empty_like(weight).copy_((2 * uniform - 1) * bound), scale.norm)


def random_magnitude(weight: Tensor, generator: torch.Generator | None, scale: Scale = SIGMA) -> State:
    """Draws M = |xavier_uniform|, of the shape of the weight; its elements are U(0, sqrt(3) sigma).

    Where the scale has a norm, M is multiplied by what gives M * sign(W) this norm.
    """
    magnitude = xavier_uniform(weight, generator, Scale(scale.groups)).abs_()
    return {"magnitude": with_norm(magnitude, scale.norm, weight)}


def sign_concordant(weight: Tensor, state: State, out: Tensor | None = None) -> Tensor:
    """Returns M * sign(W); sign(0) = 0."""
    return torch.sign(weight, out=out).mul_(state["magnitude"])


def laid_out_as(weight: Tensor, feedback: Tensor) -> Tensor:
    """Returns V in the memory layout of W, copied only where the layouts differ.

    PyTorch chooses the kernel of a convolution by the strides of its weight. Arithmetic on a weight with one input
    channel in the layout channels last gives the default strides, and with these the backward pass takes twice as long.
    A V of another shape than W (that of a direct rule) is returned as it is.
    """
    if feedback.stride() == weight.stride() or feedback.shape != weight.shape:
        return feedback
    return torch.empty_like(weight, dtype=feedback.dtype).copy_(feedback)


def frobenius(tensor: Tensor) -> float:
    """Returns the Frobenius norm of a tensor, the root of the sum of its squares, summed in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64))


def with_norm(numbers: Tensor, norm: float | None, signs_of: Tensor | None = None) -> Tensor:
    """Multiplies numbers, in place, so that V has a Frobenius norm, and returns them; None changes nothing.

    V is the numbers themselves, or numbers * sign(W) where `signs_of` is W. Where W is zero, V is zero, too. If all of
    V is zero, no factor gives it a norm, and the numbers stay as they are.
    """
    if norm is None:
        return numbers
    feedback = numbers
    if signs_of is not None and int(torch.count_nonzero(signs_of)) < signs_of.numel():
        feedback = numbers * signs_of.sign()
    present = frobenius(feedback)
    return numbers.mul_(norm / present) if present else numbers
