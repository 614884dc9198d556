"""Linear and Conv2d layers whose error goes down through a feedback weight.

Each layer's backward makes the same calls to PyTorch's kernels as the plain layer's. V is made in the backward pass and
gone after it; between forward and backward a layer keeps what the plain layer keeps. `benchmarks/training.py` compares
time and memory.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from creditflow.feedback.draws import fingerprint
from creditflow.feedback.error import OutputTap, PassError
from creditflow.feedback.rule import Rule, State, rows_of

#: Bytes of V that a backward pass makes at a time: what stays in cache, and what keeps a GPU busy.
_BLOCK = {"cpu": 2**21, "cuda": 2**26}


#: Bytes of a convolution's weight up to which one call makes all its gradients; beyond, V is gone before the weight's gradient is made.
_SMALL_KERNELS = 2**20


@dataclass(frozen=True)
class _Feedback:
    """What one layer's backward of one pass sends its error through."""

    rule: Rule
    state: State
    error: PassError | None

    def save(self, ctx: Any, x: Tensor, weight: Tensor) -> None:
        """Saves for the backward, where autograd refuses what was changed in the meantime."""
        ctx.feedback = self
        ctx.save_for_backward(x, weight, *self.state.values())

    def weight(self, weight: Tensor) -> Tensor:
        """Returns V as a whole."""
        return self.rule.feedback_weight(weight, self.state)

    def rows(self, weight: Tensor, rows: slice, out: Tensor) -> Tensor:
        """Returns rows of an elementwise rule's V, put into the first of `out`."""
        part = weight[rows]
        return self.rule.feedback_weight(part, rows_of(self.state, rows), out[: len(part)])

    def blocks(self, weight: Tensor, least: int) -> list[slice]:
        """Returns the blocks of rows, each of at least so many, in which to make V; one if it is to be made as a whole."""
        size = len(weight)
        if self.rule.elementwise:
            size = max(least, _BLOCK.get(weight.device.type, 2**26) // max(1, weight[:1].nbytes))
        return [slice(start, start + size) for start in range(0, len(weight), max(1, size))]

    def output_error(self, n: int) -> Tensor:
        """Returns the error at the output, (n, K), for a direct rule."""
        return (self.error or PassError()).of(n)


class _FeedbackLinear(torch.autograd.Function):
    """y = x W^T + b; backward: dx = dy V, dW = dy^T x, db = sum dy. x: (..., in), W and V: (out, in).

    V follows from `source`, W as it was before autocast; None means that it is the same.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, feedback: _Feedback
    ) -> Tensor:
        feedback.save(ctx, x, weight if source is None else source)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
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
    # With fewer rows than dy has, going over the sum for each block would cost more than the products.
    blocks = feedback.blocks(weight, least=len(error))
    if len(blocks) <= 1:
        return error.mm(feedback.weight(weight).to(error.dtype))
    memory = torch.empty_like(weight[blocks[0]])
    total = error.new_zeros(len(error), weight.shape[1], dtype=torch.promote_types(error.dtype, torch.float32))
    for rows in blocks:
        part, block = error[:, rows], feedback.rows(weight, rows, memory).to(error.dtype)
        if total.dtype == error.dtype:
            total.addmm_(part, block)
        else:  # half precision is for products, not for sums of them
            total += part.mm(block)
    return total.to(error.dtype)


def _direct_linear(feedback: _Feedback, weight: Tensor, x: Tensor) -> Tensor:
    """Returns e B at each position of x: (N, ..., in)."""
    matrix = feedback.weight(weight)
    error = feedback.output_error(len(x)).to(matrix.dtype).mm(matrix).to(x.dtype)
    return error.view(len(x), *[1] * (x.dim() - 2), -1).expand_as(x).contiguous()


class _FeedbackConv2d(torch.autograd.Function):
    """Convolution whose input gradient is the transposed convolution with V.

    `convolution_backward` reads its weight argument for the input gradient alone; the weight's gradient needs only its shape.
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

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors[:2]
        stride, padding, dilation, groups = ctx.geometry
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]

        def gradients(through: Tensor, *needed: bool) -> tuple[Tensor | None, ...]:
            found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
                grad_output,
                x,
                through.to(x.dtype),
                [len(weight)],
                stride,
                padding,
                dilation,
                False,
                [0, 0],
                groups,
                list(needed),
            )
            return found

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
    """Returns the transposed convolution with B of e, which stands at each place of the output map; of x's shape.

    As e is the same everywhere, a pixel gets its channel's elements of e B, one for each of the kernel's taps, as often as
    an output place meets it with that tap. So two small products suffice: no map of K channels is ever made.
    """
    kernels = feedback.weight(weight)
    height, width = kernels.shape[2:]
    taps = torch.eye(height * width, dtype=kernels.dtype, device=kernels.device).view(1, -1, height, width)
    everywhere = kernels.new_ones(1, 1, *output_shape[2:])
    meets = conv2d_input((1, height * width, *x.shape[2:]), taps, everywhere, *geometry)
    error = feedback.output_error(len(x)).to(kernels.dtype)
    at_taps = error.mm(kernels.flatten(1)).view(-1, height * width)
    return at_taps.mm(meets.view(height * width, -1)).view_as(x).to(x.dtype)


class FeedbackLayer(nn.Module):
    """What Linear and Conv2d share once a rule is on them: the rule's state, up to date with the present W.

    An update of W, for rules that react to one, is noticed by a fingerprint of W. Version counters would not do, as
    fused optimisers do not advance them, and a copy of W would cost its memory.
    """

    weight: Tensor
    rule: Rule
    state: State
    _tap: OutputTap | None
    _seen: Tensor

    def put_rule(self, rule: Rule, state: State, tap: OutputTap | None = None) -> None:
        """Attaches a rule, its state for this layer, and for a direct rule the tap on the view's output."""
        self.rule, self.state, self._tap = rule, state, tap
        if rule.after_update is not None:
            self._seen = fingerprint(self.weight)

    def feedback_weight(self) -> Tensor:
        """Returns V for the present W: of W's shape, for a direct rule (K, inputs, ...)."""
        with torch.no_grad():
            return self.rule.feedback_weight(self.weight.detach(), self.present_state())

    def present_state(self) -> State:
        """Returns the rule's state for the present W; a redraw that an update has made due is done first."""
        if self.rule.after_update is not None:
            present = fingerprint(self.weight)
            if not torch.equal(present, self._seen):
                self.state, self._seen = self.rule.after_update(self.weight.detach(), self.state), present
        return self.state

    def _feedback(self) -> _Feedback:
        """Returns what a pass that begins now sends its error through."""
        return _Feedback(self.rule, self.present_state(), self._tap.current if self._tap is not None else None)

    def _operands(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Returns x, W, b and None; in autocast's type where autocast is on (as for PyTorch's own layers), and W as it is."""
        if not torch.is_autocast_enabled(x.device.type):
            return x, self.weight, bias, None
        dtype = torch.get_autocast_dtype(x.device.type)
        return _cast(x, dtype), _cast(self.weight, dtype), None if bias is None else _cast(bias, dtype), self.weight


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # autocast leaves float64 alone


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with a feedback rule; inputs of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        output: Tensor = _FeedbackLinear.apply(*self._operands(x, self.bias), self._feedback())  # type: ignore[no-untyped-call]
        return output


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """nn.Conv2d with a feedback rule; every stride, padding, padding mode, dilation and number of groups."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        left, right, top, bottom = self._reversed_padding_repeated_twice
        padding = (top, left)
        if self.padding_mode != "zeros" or (left, top) != (right, bottom):
            # Padding is not a weight: it stays outside the rule, with its exact gradient.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, [left, right, top, bottom], mode=mode), (0, 0)
        geometry = (self.stride, padding, self.dilation, self.groups)
        output: Tensor = _FeedbackConv2d.apply(*self._operands(x, self.bias), self._feedback(), geometry)  # type: ignore[no-untyped-call]
        return output


#: The plain layer types that a rule replaces, and what replaces them.
FEEDBACK_TYPES: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}
