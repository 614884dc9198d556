"""Linear and Conv2d layers whose error goes down through a feedback weight.

The backward of each layer calls the same kernels of PyTorch as that of the plain layer. V is made in the backward pass
and does not outlive it. Between forward and backward a layer keeps no more than the plain layer and the state of the
rule. `benchmarks/training.py` compares time and memory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from creditflow.feedback.draws import fingerprint
from creditflow.feedback.error import OutputTap, PassError, check_no_transform, first_order, refuse_tangents
from creditflow.feedback.rule import Rule, State

#: Bytes of V that a backward pass makes at a time: as many as fit in a cache, or as keep a GPU busy.
_BLOCK = {"cpu": 2**21, "cuda": 2**26}

#: If the weight of a convolution has at most this number of bytes, one call makes all gradients. For a larger weight
#: there are two calls, so that V and the gradient of the weight are not in memory at the same time.
_SMALL_KERNELS = 2**20


@dataclass(frozen=True)
class _Feedback:
    """What the backward of one layer needs for one pass: the rule, its state, and for a direct rule the error."""

    rule: Rule
    state: State
    error: PassError | None

    def save(self, ctx: Any, x: Tensor, weight: Tensor) -> None:
        """Saves tensors for the backward. Autograd raises an error there if they were changed in the meantime."""
        ctx.feedback = self
        ctx.save_for_backward(x, weight, *self.state.values())

    def weight(self, weight: Tensor) -> Tensor:
        """Returns V as a whole."""
        return self.rule.feedback_weight(weight, self.state)

    def rows(self, weight: Tensor, rows: slice, out: Tensor) -> Tensor:
        """Returns rows of V for an elementwise rule, put into the first rows of `out`."""
        return self.rule.feedback_rows(weight, self.state, rows, out)

    def blocks(self, weight: Tensor, least: int) -> list[slice]:
        """Returns the blocks of at least `least` rows in which V is made; a single block if it is made as a whole."""
        size = len(weight)
        if self.rule.elementwise:
            size = max(least, _BLOCK.get(weight.device.type, 2**26) // max(1, weight[:1].nbytes))
        return [slice(start, start + size) for start in range(0, len(weight), max(1, size))]

    def output_error(self, n: int) -> Tensor:
        """Returns the error at the output, (n, K), for a direct rule."""
        return (self.error or PassError()).for_images(n)


class _FeedbackLinear(torch.autograd.Function):
    """y = x W^T + b; backward: dx = dy V, dW = dy^T x, db = sum dy. x: (..., in); W and V: (out, in).

    V follows from `source`, which is W as it was before autocast; None means that autocast has not changed W.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, feedback: _Feedback
    ) -> Tensor:
        feedback.save(ctx, x, weight if source is None else source)
        return F.linear(x, weight, bias)

    jvp = staticmethod(refuse_tangents)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors[:2]
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        grad_x = None
        if needs_x:
            grad_x = (
                _direct_linear(ctx.feedback, weight, x)
                if ctx.feedback.rule.direct
                else _down(ctx.feedback, weight, flat).view_as(x)
            )
        grad_weight = flat.t().mm(x.reshape(-1, x.shape[-1])) if needs_weight else None
        grad_bias = flat.sum(0) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None


def _down(feedback: _Feedback, weight: Tensor, error: Tensor) -> Tensor:
    """Returns dy V, (n, in), for dy (n, out)."""
    # If a block had fewer rows than dy, the additions to the sum would cost more than the matrix products.
    blocks = feedback.blocks(weight, least=len(error))
    if len(blocks) <= 1:
        return error.mm(feedback.weight(weight).to(error.dtype))
    memory = torch.empty_like(weight[blocks[0]])
    total = error.new_zeros(len(error), weight.shape[1], dtype=torch.promote_types(error.dtype, torch.float32))
    for rows in blocks:
        part, block = error[:, rows], feedback.rows(weight, rows, memory).to(error.dtype)
        if total.dtype == error.dtype:
            total.addmm_(part, block)
        else:  # half precision is used for the products, not for their sum
            total += part.mm(block)
    return total.to(error.dtype)


def _direct_linear(feedback: _Feedback, weight: Tensor, x: Tensor) -> Tensor:
    """Returns e B at each position of x, of shape (N, ..., in)."""
    matrix = feedback.weight(weight)
    error = feedback.output_error(len(x)).to(matrix.dtype).mm(matrix).to(x.dtype)
    return error.view(len(x), *[1] * (x.dim() - 2), x.shape[-1]).expand_as(x).contiguous()


class _FeedbackConv2d(torch.autograd.Function):
    """A convolution; the gradient of its input is the transposed convolution with V.

    `convolution_backward` uses the values of its weight argument for the gradient of the input only. For the gradient
    of the weight it uses no more than the shape.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        source: Tensor | None,
        feedback: _Feedback,
        geometry: tuple[Any, ...],
    ) -> Tensor:
        stride, padding, dilation, groups = ctx.geometry = geometry
        feedback.save(ctx, x, weight if source is None else source)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    jvp = staticmethod(refuse_tangents)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors[:2]
        stride, padding, dilation, groups = ctx.geometry
        geometry = (stride, padding, dilation, False, [0, 0], groups)  # not transposed, without output padding
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]

        def gradients(through: Tensor, *needed: bool) -> tuple[Tensor | None, ...]:
            results: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                grad_output, x, through.to(x.dtype), [len(weight)], *geometry, list(needed)
            )
            return results

        if needs_x and not ctx.feedback.rule.direct and weight.nbytes <= _SMALL_KERNELS:
            return *gradients(ctx.feedback.weight(weight), True, needs_weight, needs_bias), None, None, None
        grad_x = None
        if needs_x and ctx.feedback.rule.direct:
            grad_x = _direct_conv(ctx.feedback, weight, x, grad_output.shape, (stride, padding, dilation))
        elif needs_x:
            grad_x = gradients(ctx.feedback.weight(weight), True, False, False)[0]
        _, grad_weight, grad_bias = (
            gradients(weight, False, needs_weight, needs_bias) if needs_weight or needs_bias else (None,) * 3
        )
        return grad_x, grad_weight, grad_bias, None, None, None


def _direct_conv(
    feedback: _Feedback, weight: Tensor, x: Tensor, output_shape: torch.Size, geometry: tuple[Any, ...]
) -> Tensor:
    """Returns the transposed convolution with B of a map that holds e at each position; it has the shape of x.

    As e is the same everywhere, a pixel gets the elements of e B of its channel, one for each tap of the kernel, each
    as often as a position of the output meets the pixel with that tap. So two small matrix products suffice, and a map
    of K channels is never made.
    """
    kernels = feedback.weight(weight)
    height, width = kernels.shape[2:]
    taps = torch.eye(height * width, dtype=kernels.dtype, device=kernels.device).view(1, -1, height, width)
    everywhere = kernels.new_ones(1, 1, *output_shape[2:])
    meets = conv2d_input((1, height * width, *x.shape[2:]), taps, everywhere, *geometry)
    error = feedback.output_error(len(x)).to(kernels.dtype)
    at_taps = error.mm(kernels.flatten(1)).view(len(x) * x.shape[1], height * width)
    return at_taps.mm(meets.view(height * width, -1)).view_as(x).to(x.dtype)


class FeedbackLayer(nn.Module):
    """What Linear and Conv2d have in common when a rule is on them: the state of the rule, which follows W.

    For rules that react to an update of W, the layer notices the update by a fingerprint of W. The version counters of
    tensors would not do, as fused optimisers do not advance them, and a copy of W would cost memory.
    """

    weight: Tensor
    rule: Rule
    state: State
    _tap: OutputTap | None
    _seen: Tensor

    def put_rule(self, rule: Rule, state: State, tap: OutputTap | None = None) -> None:
        """Puts a rule on the layer, with its state for this layer and, for a direct rule, the tap on the output."""
        self.rule, self.state, self._tap = rule, state, tap
        if rule.after_update is not None:
            self._seen = fingerprint(self.weight)

    def feedback_weight(self) -> Tensor:
        """Returns V for the present W, of the shape of W; for a direct rule of the shape (K, inputs, ...)."""
        with torch.no_grad():
            return self.rule.feedback_weight(self.weight.detach(), self.present_state())

    def present_state(self) -> State:
        """Returns the state of the rule for the present W. If W has changed, the rule updates its state first."""
        if self.rule.after_update is not None:
            present = fingerprint(self.weight)
            if not torch.equal(present, self._seen):
                with torch.autocast(self.weight.device.type, enabled=False):  # half precision is for the pass only
                    self.state = self.rule.after_update(self.weight.detach(), self.state)
                self._seen = present
        return self.state

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves or converts the layer (`to`, `half`, `cuda` and the like) together with the state of its rule.

        A weight that was moved counts as the same weight: the rule does not take this for an update.
        """
        state = self.present_state()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.state = {name: fn(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
        if self.rule.after_update is not None:
            self._seen = fingerprint(self.weight)
        return self

    def _feedback(self) -> _Feedback:
        """Returns what the backward of a pass that begins now will need.

        Raises UserError in a transform of `torch.func`.
        """
        check_no_transform()
        return _Feedback(self.rule, self.present_state(), self._tap.current if self._tap is not None else None)

    def _operands(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Returns x, W, b, and what V follows from if that is not this W.

        Under autocast x, W and b are in its type, as in the layers of PyTorch, and V follows from the W before that.
        """
        if not torch.is_autocast_enabled(x.device.type):
            return x, self.weight, bias, None
        dtype = torch.get_autocast_dtype(x.device.type)
        return _cast(x, dtype), _cast(self.weight, dtype), None if bias is None else _cast(bias, dtype), self.weight


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # autocast does not change float64


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with a feedback rule, for inputs of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        operands = *self._operands(x, self.bias), self._feedback()
        output: Tensor = _FeedbackLinear.apply(*operands)  # type: ignore[no-untyped-call]
        return output


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """nn.Conv2d with a feedback rule, for every stride, padding, padding mode, dilation and number of groups."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        left, right, top, bottom = self._reversed_padding_repeated_twice
        padding = (top, left)
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            # Padding has no weights. It is done outside the function, where its gradient is exact.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, [left, right, top, bottom], mode=mode), (0, 0)
        geometry = (self.stride, padding, self.dilation, self.groups)
        operands = *self._operands(x, self.bias), self._feedback(), geometry
        output: Tensor = _FeedbackConv2d.apply(*operands)  # type: ignore[no-untyped-call]
        return output


#: The types of plain layers that a rule can be put on, and the types that replace them.
FEEDBACK_TYPES: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}
