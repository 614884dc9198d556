"""Whose gradient an attack on somebody else's model follows: its own gradient, or the exact one."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from creditflow.compute import randomness
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


#: How far from an image, in units of its range, the exact gradient is taken.
_BESIDE = 2.5e-4


class Beside(nn.Module):
    """A view of a model whose gradient is taken at a point beside each image, within [0, 1]; its outputs are the same.

    Autograd has to choose a derivative where there is none. Its ReLU and Hardtanh have a slope of zero at 0 and 1, so
    that black and white pixels behind such a layer would never move; and of equal numbers, max-pooling follows one.
    Images are full of such points, and there are none beside them. The random moves are the same for all images.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Returns the model's outputs (N, K) at images x (N, C, H, W)."""
        if torch.is_grad_enabled() and x.requires_grad:
            at = x.detach() + _moves(tuple(x.shape[1:])).to(x)
            # What would leave [0, 1] is reflected. The value is that beside the image, the slope that of the identity.
            x = 1 - (1 - at.abs()).abs() + (x - x.detach())
        outputs: Tensor = self.model(x)
        return outputs


@lru_cache(maxsize=4)
def _moves(shape: tuple[int, ...]) -> Tensor:
    """Returns numbers between -2.5e-4 and 2.5e-4, float32 of this shape."""
    return _BESIDE * (2 * torch.rand(shape, generator=randomness.generator("beside")) - 1)


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
    """Returns a model as an attacker differentiates it: itself, or a view with the exact gradient beside each image.

    Args:
        model: any module.
        gradient: "exact" or "own".
        honest: whether the model's own gradient is known to be the exact one.
        missing: what becomes of parts of the model without a derivative; see `exact_gradients`.
    """
    if gradient != "exact":
        return model
    return Beside(model if honest else ExactView(model, missing))
