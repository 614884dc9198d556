"""The functions of autograd behind feedback layers: the forward of the plain layer, and a backward through V.

The backward of each function calls the same kernels of PyTorch as that of the plain layer. V is made in the backward
pass and does not outlive it. Between forward and backward a function keeps no more than the plain layer and the state
of the rule. `benchmarks/training.py` compares time and memory.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from creditflow.feedback.error import PassError, first_order, refuse_tangents
from creditflow.feedback.rule import Rule, State, laid_out_as

#: Bytes of V that a backward pass makes at a time: as many as fit in a cache, or as keep a GPU busy.
_BLOCK = {"cpu": 2**21, "cuda": 2**26}

#: If the weight of a convolution has at most this number of bytes, one call makes all gradients. For a larger weight
#: there are two calls, so that V and the gradient of the weight are not in memory at the same time.
_SMALL_KERNELS = 2**20

#: At most this number of counts (taps times pixels) are kept for the next step of a direct rule.
_FEW = 2**16


@dataclass(frozen=True)
class Feedback:
    """What the backward of one layer needs for one pass: the rule, its state, and for a direct rule the error."""

    rule: Rule
    state: State
    error: PassError | None

    def save(self, ctx: Any, x: Tensor, weight: Tensor) -> None:
        """Saves tensors for the backward. Autograd raises an error there if they were changed in the meantime."""
        ctx.feedback = self
        ctx.save_for_backward(x, weight, *self.state.values())

    def weight(self, weight: Tensor) -> Tensor:
        """Returns V as a whole, in the memory layout of W."""
        return laid_out_as(weight, self.rule.feedback_weight(weight, self.state))

    def rows(self, weight: Tensor, rows: slice, out: Tensor) -> Tensor:
        """Returns rows of V for an elementwise rule, put into the first rows of `out`."""
        return self.rule.feedback_rows(weight, self.state, rows, out)

    def blocks(self, weight: Tensor, least: int) -> list[slice]:
        """Returns the blocks of at least `least` rows in which V is made; a single block if it is made as a whole."""
        size, rows = len(weight), len(weight)
        if self.rule.elementwise:
            size = max(least, _BLOCK.get(weight.device.type, 2**26) // max(1, weight.nbytes // max(1, rows)))
        return [slice(start, start + size) for start in range(0, rows, max(1, size))]

    def output_error(self, n: int) -> Tensor:
        """Returns the error at the output, (n, K), for a direct rule."""
        return (self.error or PassError()).for_images(n)


class LinearFunction(torch.autograd.Function):
    """y = x W^T + b; backward: dx = dy V, dW = dy^T x, db = sum dy. x: (..., in); W and V: (out, in).

    V follows from `source`, which is W as it was before autocast; None means that autocast has not changed W.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, source: Tensor | None, feedback: Feedback
    ) -> Tensor:
        feedback.save(ctx, x, weight if source is None else source)
        return F.linear(x, weight, bias)

    jvp = staticmethod(refuse_tangents)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight, *_), feedback = ctx.saved_tensors, ctx.feedback
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        flat, grad_x = _as_matrix(grad_output), None
        if needs_x and feedback.rule.direct:
            grad_x = _direct_linear(feedback, weight, x)
        elif needs_x:
            grad_x = _down(feedback, weight, flat)
            grad_x = grad_x if x.dim() == 2 else grad_x.view_as(x)
        grad_weight = flat.t().mm(_as_matrix(x)) if needs_weight else None
        grad_bias = flat.sum(0) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None, None


def _as_matrix(tensor: Tensor) -> Tensor:
    """Returns a tensor (..., n) as (N, n); n may be 0."""
    if tensor.dim() == 2:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1])


def _down(feedback: Feedback, weight: Tensor, error: Tensor) -> Tensor:
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


def _direct_linear(feedback: Feedback, weight: Tensor, x: Tensor) -> Tensor:
    """Returns e B at each position of x, of shape (N, ..., in)."""
    matrix = feedback.weight(weight)
    error = feedback.output_error(len(x)).to(matrix.dtype).mm(matrix).to(x.dtype)
    if x.dim() == 2:
        return error
    return error.view(len(x), *[1] * (x.dim() - 2), x.shape[-1]).expand_as(x).contiguous()


class Conv2dFunction(torch.autograd.Function):
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
        feedback: Feedback,
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
    feedback: Feedback, weight: Tensor, x: Tensor, output_shape: torch.Size, geometry: tuple[Any, ...]
) -> Tensor:
    """Returns the transposed convolution with B of a map that holds e at each position; it has the shape of x.

    As e is the same everywhere, a pixel gets the elements of e B of its channel, one for each tap of the kernel, each
    as often as a position of the output meets the pixel with that tap. So two small matrix products suffice, and a map
    of K channels is never made.
    """
    kernels = feedback.weight(weight)
    height, width = kernels.shape[2:]
    sizes = (height, width), tuple(x.shape[2:]), tuple(output_shape[2:])
    # Small maps are kept: to count again would cost more than all the rest. A compiler must not meet what is kept.
    kept = height * width * math.prod(x.shape[2:]) <= _FEW and not torch.compiler.is_compiling()
    meets = (_kept_meetings if kept else _meetings)(sizes, geometry, kernels.dtype, kernels.device)
    error = feedback.output_error(len(x)).to(kernels.dtype)
    at_taps = error.mm(kernels.flatten(1)).view(len(x) * x.shape[1], height * width)
    return at_taps.mm(meets).view_as(x).to(x.dtype)


def _meetings(
    sizes: tuple[tuple[int, ...], ...], geometry: tuple[Any, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Returns how often a position of the output meets each pixel with each tap, of shape (taps, pixels).

    Args:
        sizes: height and width of the kernel, of the input and of the output.
        geometry: stride, padding and dilation.
        dtype: type of the numbers.
        device: where they are.
    """
    kernel, pixels, output = sizes
    n_taps = math.prod(kernel)
    taps = torch.eye(n_taps, dtype=dtype, device=device).view(1, -1, *kernel)
    everywhere = torch.ones(1, 1, *output, dtype=dtype, device=device)
    counts: Tensor = conv2d_input((1, n_taps, *pixels), taps, everywhere, *geometry)
    return counts.view(n_taps, -1)


_kept_meetings = lru_cache(maxsize=64)(_meetings)
