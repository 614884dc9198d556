"""Whose gradient an attack on somebody else's model follows: its own gradient, or the exact one."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from creditflow.derivatives.exact import exact_gradients
from creditflow.derivatives.scope import Missing


class ExactView(nn.Module):
    """A view of a model with the same outputs, whose gradient is always the exact one, also beside other models.

    The block of `exact_gradients` reaches all models of a thread. An attack that follows the exact gradient of one
    model and the own gradient of another one, as an attack that transfers images does, needs them apart.
    """

    def __init__(self, model: nn.Module, missing: Missing = "error") -> None:
        super().__init__()
        self.model, self.missing = model, missing

    def forward(self, x: Tensor) -> Tensor:
        """Returns the model's outputs (N, K) at images x (N, C, H, W)."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            outputs: Tensor = self.model(x)
            return outputs
        differentiable: Tensor = _Exact.apply(x, self.model, self.missing)  # type: ignore[no-untyped-call]
        return differentiable


class _Exact(torch.autograd.Function):
    """Runs a model and its backward pass inside `exact_gradients`, with a graph of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: nn.Module, missing: Missing) -> Tensor:
        with torch.enable_grad(), exact_gradients(model, missing=missing):
            inside = x.detach().requires_grad_()
            outputs = model(inside)
        ctx.inside, ctx.outputs, ctx.model, ctx.missing = inside, outputs, model, missing
        values: Tensor = outputs.detach()
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if not ctx.outputs.requires_grad:  # nothing of the model has a derivative
            return torch.zeros_like(ctx.inside), None, None
        with exact_gradients(ctx.model, missing=ctx.missing):
            # The graph stays: FAB asks for the gradient of one output after the other.
            (inner,) = torch.autograd.grad(
                ctx.outputs, ctx.inside, grad, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        return inner, None, None


class FlatView(nn.Module):
    """A view of a model with the same outputs and a gradient of zero.

    It is for a model whose backward pass gives no gradient, or fails. An attack that follows it stands still, and
    its guard says why.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Returns the model's outputs (N, K) at images x (N, C, H, W)."""
        with torch.no_grad():
            outputs: Tensor = self.model(x)
        return outputs + 0.0 * x.flatten(1).sum(1, keepdim=True)


def view_of(model: nn.Module, gradient: str, *, honest: bool, missing: Missing = "error") -> nn.Module:
    """Returns a model as an attacker differentiates it: itself, or a view with the exact gradient.

    Args:
        model: any module.
        gradient: "exact" or "own".
        honest: whether the model's own gradient is known to be the exact one, so that no view is needed.
        missing: what becomes of parts of the model without a derivative; see `exact_gradients`.
    """
    return ExactView(model, missing) if gradient == "exact" and not honest else model
