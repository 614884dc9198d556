"""Linear and Conv2d layers whose error goes down through a feedback weight.

Each layer's backward makes the same calls to PyTorch's kernels as the plain layer's; `benchmarks/feedback_step.py`
compares their times.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from creditflow.learning.rule import Rule, State


class _FeedbackLinear(torch.autograd.Function):
    """y = x W^T + b; backward: dx = dy V, dW = dy^T x, db = sum dy. x: (..., in), W and V: (out, in)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(x, feedback)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        flat = grad_output.reshape(-1, grad_output.shape[-1])
        grad_x = grad_output.matmul(feedback) if needs_x else None
        grad_weight = flat.t().mm(x.reshape(-1, x.shape[-1])) if needs_weight else None
        grad_bias = flat.sum(0) if needs_bias else None
        return grad_x, grad_weight, grad_bias, None


class _FeedbackConv2d(torch.autograd.Function):
    """Convolution whose input gradient is the transposed convolution with V.

    `convolution_backward` reads its weight argument for the input gradient alone (the weight gradient needs only its
    shape), so handing it V gives all three gradients of the rule in one call.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = ctx.geometry = geometry
        ctx.save_for_backward(x, feedback)
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        x, feedback = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        grads = torch.ops.aten.convolution_backward(
            grad_output, x, feedback, [feedback.shape[0]], stride, padding, dilation, False, [0, 0], groups, ctx.needs_input_grad[:3]
        )
        return (*grads, None, None)


class FeedbackLayer(nn.Module):
    """What Linear and Conv2d share once a rule is on them: the rule's state, and V for the present W.

    V is computed in each forward pass that needs gradients: a few elementwise operations on W, where the pass itself
    multiplies W with every position of every image. An update of W, for rules that react to one, is noticed by
    comparing W with a copy; version counters would not do, as fused optimisers do not advance them.
    """

    weight: Tensor
    rule: Rule
    state: State
    _seen: Tensor | None

    def put_rule(self, rule: Rule, state: State) -> None:
        """Attaches a rule and its state for this layer."""
        self.rule, self.state = rule, state
        self._seen = self.weight.detach().clone() if rule.after_update is not None else None

    @torch.no_grad()
    def feedback_weight(self) -> Tensor:
        """Returns V, of W's shape, for the present W."""
        weight = self.weight.detach()
        if self.rule.after_update is not None and self._seen is not None and not torch.equal(weight, self._seen):
            self.state = self.rule.after_update(weight, self.state)
            self._seen = weight.clone()
        return self.rule.feedback_weight(weight, self.state)

    def operands(self, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Returns x, W, b and V, in autocast's type where autocast is on (as PyTorch does for its own layers)."""
        feedback = self.feedback_weight()
        if not torch.is_autocast_enabled(x.device.type):
            return x, self.weight, bias, feedback
        dtype = torch.get_autocast_dtype(x.device.type)
        return _cast(x, dtype), _cast(self.weight, dtype), None if bias is None else _cast(bias, dtype), _cast(feedback, dtype)


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)  # autocast leaves float64 alone


class FeedbackLinear(FeedbackLayer, nn.Linear):
    """nn.Linear with a feedback rule; inputs of any number of dimensions."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        output: Tensor = _FeedbackLinear.apply(*self.operands(x, self.bias))  # type: ignore[no-untyped-call]
        return output


class FeedbackConv2d(FeedbackLayer, nn.Conv2d):
    """nn.Conv2d with a feedback rule; every stride, padding, padding mode, dilation and number of groups."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        if x.dim() == 3:
            return self.forward(x.unsqueeze(0)).squeeze(0)
        padding = self.padding
        if isinstance(padding, str) or self.padding_mode != "zeros":
            # Padding is not a weight: it stays outside the rule, with its exact gradient.
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding = F.pad(x, self._reversed_padding_repeated_twice, mode=mode), (0, 0)
        geometry = (self.stride, padding, self.dilation, self.groups)
        output: Tensor = _FeedbackConv2d.apply(*self.operands(x, self.bias), geometry)  # type: ignore[no-untyped-call]
        return output


#: The plain layer types that a rule replaces, and what replaces them.
FEEDBACK_TYPES: dict[type[nn.Module], type[FeedbackLayer]] = {nn.Linear: FeedbackLinear, nn.Conv2d: FeedbackConv2d}
