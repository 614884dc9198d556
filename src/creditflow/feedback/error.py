"""The error at the output of a view, for rules that send it to every layer directly.

A pass is one call of the view. The layers and the output of a pass share one object, a `PassError`. The backward of the
output runs before that of any layer and puts the error into this object, so that the backward of each layer finds it
there. So each pass has its own error: in training and in evaluation, for every loss and size of the batch, and also if
there are several passes before a backward.
"""

from typing import Any

from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from creditflow.core.errors import UserError


class PassError:
    """The error e = dL/dlogits, of shape (N, K), of one pass; None until the backward pass reaches the output."""

    def __init__(self) -> None:
        self.value: Tensor | None = None

    def for_images(self, n: int) -> Tensor:
        """Returns e. Raises UserError if e is not known, or is not the error of n images."""
        if self.value is None:
            raise UserError(
                "this rule sends down the error at the output:"
                " the loss must be a function of what the whole view returns"
            )
        if len(self.value) != n:
            raise UserError(
                f"this rule sends the error of {len(self.value)} images"
                f" to a layer whose input has {n} in its first dimension"
            )
        return self.value


class _Tap(Function):
    """The identity. Its backward notes the error that passes through."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, error: PassError) -> Tensor:
        ctx.error = error
        return output.clone()  # a clone, as the caller may write into it

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        ctx.error.value = grad_output
        return grad_output, None


class OutputTap:
    """Begins a pass when the view is called, and taps the output when the view returns."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        #: The error of the pass that is under way; None while the view is not being called.
        self.current: PassError | None = None

    def put_on(self, view: nn.Module) -> None:
        """Makes each call of the view a pass."""
        view.register_forward_pre_hook(self._begin)
        view.register_forward_hook(self._end)

    def _begin(self, view: nn.Module, arguments: Any) -> None:
        self.current = PassError()

    def _end(self, view: nn.Module, arguments: Any, output: Any) -> Any:
        error, self.current = self.current, None
        if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] != self.outputs:
            returned = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"this rule was put on for outputs of shape [N, {self.outputs}], the model returns {returned};"
                " pass outputs=K"
            )
        return _Tap.apply(output, error)  # type: ignore[no-untyped-call]
