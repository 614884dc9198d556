"""The error at a view's output, for rules that send it to every layer directly.

A pass is one call of the view. Its layers and its output share one object, which each layer's backward finds filled: the
output's own backward is always the first to run. So the error belongs to the running backward pass, in training and
evaluation, whatever the loss, the size of the batch and the number of passes before a backward.
"""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from creditflow.core.errors import UserError


class PassError:
    """The error e = dL/dlogits (N, K) of one pass; nothing until the backward pass meets the output."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def of(self, n: int) -> Tensor:
        """Returns e. Raises UserError if it is not known, or not of n images."""
        if self.value is None:
            raise UserError(
                "this rule sends down the error at the output: the loss must be a function of what the whole view returns"
            )
        if len(self.value) != n:
            raise UserError(
                f"this rule sends the error of {len(self.value)} images to a layer whose input has {n} in its first dimension"
            )
        return self.value


class _Tap(Function):
    """The identity, whose backward keeps the error that comes by."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, error: PassError) -> Tensor:
        ctx.error = error
        return output.clone()  # which may be written into, unlike a view

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        ctx.error.value = grad_output
        return grad_output, None


class OutputTap:
    """Opens a pass when the view is called, and taps its output when it returns."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        #: The pass that is under way; None outside of the view's own forward.
        self.current: PassError | None = None

    def put_on(self, view: nn.Module) -> None:
        """Makes the view's calls passes."""
        view.register_forward_pre_hook(self._begin)
        view.register_forward_hook(self._end)

    def _begin(self, view: nn.Module, arguments: Any) -> None:
        self.current = PassError()

    def _end(self, view: nn.Module, arguments: Any, output: Any) -> Any:
        error, self.current = self.current, None
        if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] != self.outputs:
            found = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"this rule was put on for outputs of shape [N, {self.outputs}], the model returns {found}; pass outputs=K"
            )
        return _Tap.apply(output, error)  # type: ignore[no-untyped-call]
