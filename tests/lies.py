"""Layers whose backward pass is known not to be the derivative of their forward pass, and one that is right."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function


class SignSymmetric(Function):
    """x W^T, whose gradient of x goes through sign(W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight.sign(), gradient.T @ x


class SignSymmetricLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return SignSymmetric.apply(x, self.weight) + self.bias


class Clip(Function):
    """The identity, with a gradient that is clipped to half its size."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient / 2


class ClippedGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Clip.apply(x)


class ClampedGradient(nn.Module):
    """The identity, whose gradient is clamped to [-100, 100]: honest until a gradient is larger."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda gradient: gradient.clamp(-100, 100))
        return y


class Reverse(Function):
    """The identity, whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class ReversedGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Reverse.apply(x)


class FunctionInForward(nn.Module):
    """A container that calls a lying function between two honest layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(20, 20), nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(Reverse.apply(torch.tanh(self.first(x))))


class FeedbackHook(nn.Linear):
    """A linear layer whose legacy backward hook replaces the gradient by that through random weights, as DFA's does."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)
        self.register_buffer("feedback", torch.randn(width, width))
        self.register_full_backward_hook(lambda module, given, arrived: (arrived[0] @ module.feedback,))


class HookedTensor(nn.Module):
    """The identity with a hook on its output that doubles the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 1
        if y.requires_grad:
            y.register_hook(lambda gradient: 2 * gradient)
        return y


class Step(Function):
    """1 where x > 0, with another function's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient / (1 + 5 * x.abs()) ** 2


class StraightThroughSign(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * Step.apply(x) - 1


class Spiking(nn.Module):
    """Leaky integrate-and-fire neurons over five steps; the membrane potential stays in the module between calls."""

    potential: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        spikes = torch.zeros_like(x)
        for _ in range(5):
            previous = torch.zeros_like(x) if self.potential is None else self.potential
            fired = Step.apply(0.8 * previous + x - 0.5)
            self.potential = (0.8 * previous + x - fired).detach()
            spikes = spikes + fired
        return spikes


class Rounding(nn.Module):
    """Rounds to eighths: the exact gradient is zero, and this layer gives no other."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.round(8 * x) / 8


class DetachTrick(nn.Module):
    """The straight-through estimator without a function of autograd."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (torch.round(8 * x) / 8 - x).detach()


class ForgetsGradient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x.detach())


class Exp(Function):
    """e^x with its true derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return gradient * y


class CorrectExp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Exp.apply(x / 4)
