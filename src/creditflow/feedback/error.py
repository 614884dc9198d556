"""The error at the output of a view, for rules that send it to every layer directly.

A pass is one call of the view. The layers and the output of a pass share one object, a `PassError`. The backward of the
output runs before that of any layer and puts the error into this object, so that the backward of each layer finds it
there. So each pass has its own error: in training and in evaluation, for every loss and size of the batch, and also if
there are several passes before a backward.
"""

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from creditflow.core.errors import UserError

_SECOND_DERIVATIVE = (
    "the gradient of a rule has no derivative: leave create_graph out, or apply the rule 'bp' for second derivatives"
)
_TRANSFORM = (
    "a view works under no transform of torch.func (grad, vmap, jvp) and gives no forward-mode gradient;"
    " use torch.autograd.grad, or apply the rule 'bp'"
)

_CAPTURED = (
    "a view cannot be traced, scripted or exported: what is captured of it would give the exact gradient;"
    " capture the plain model"
)


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a backward that raises UserError if somebody wants to differentiate its result (`create_graph=True`).

    `once_differentiable` alone would let a penalty on the gradient be without effect: it raises an error only where the
    error that comes from above follows from a parameter.
    """
    once = once_differentiable(backward)

    @wraps(backward)
    def checked(ctx: Any, *errors: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return once(ctx, *errors)
        check_first_order()
        return backward(ctx, *errors)  # there are no gradients here that `once` would have to switch off

    return checked


def check_first_order() -> None:
    """Raises UserError in a backward pass whose result somebody wants to differentiate (`create_graph=True`)."""
    if torch.is_grad_enabled():
        raise UserError(_SECOND_DERIVATIVE)


def refuse_tangents(ctx: Any, *tangents: Any) -> Any:
    """The `jvp` of every function of a view. Raises UserError: a rule is defined for the backward pass only."""
    raise UserError(_TRANSFORM)


def check_no_transform() -> None:
    """Raises UserError in a transform of `torch.func`, which would differentiate a pass by rules of its own."""
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise UserError(_TRANSFORM)


def check_not_captured(*inputs: object) -> None:
    """Raises UserError if a pass is traced, or has inputs of a tracer, as a graph of functions would lose the rule."""
    traced = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
    if traced:
        raise UserError(_CAPTURED)
    for x in inputs:
        if not isinstance(x, Tensor):
            raise UserError(_CAPTURED)
    tracer = torch._C._TorchDispatchModeKey.PROXY
    if not torch.compiler.is_compiling() and torch._C._get_dispatch_mode(tracer) is not None:
        raise UserError(_CAPTURED)


def refuse_script() -> None:
    """Raises UserError: `torch.jit.script` would lose the rule."""
    raise UserError(_CAPTURED)


def _thread() -> int:
    return 0 if torch.compiler.is_compiling() else threading.get_ident()


def _backward_pass() -> int:
    """Returns a number of the running backward pass; -1 outside of any."""
    return -1 if torch.compiler.is_compiling() else torch._C._current_graph_task_id()


def uncompiled(view: nn.Module) -> nn.Module:
    """Returns what `torch.compile` has wrapped. Its wrapper loses its hooks when it is copied."""
    while isinstance(inner := getattr(view, "_orig_mod", None), nn.Module):
        view = inner
    return view


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
    def forward(ctx: Any, output: Tensor, error: PassError, tap: "OutputTap") -> Tensor:
        ctx.error, ctx.tap = error, tap
        return output.clone()  # a clone, as the caller may write into it

    jvp = staticmethod(refuse_tangents)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        ctx.error.value = grad_output
        ctx.tap.arrived = ctx.error, _backward_pass()
        return grad_output, None, None


class OutputTap:
    """Begins a pass when the view is called, and taps the output when the view returns."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        #: The errors of the passes that are under way, by thread: `nn.DataParallel` runs several at a time.
        self._under_way: dict[int, PassError] = {}
        #: The pass whose error arrived last, and the backward pass in which it did.
        self.arrived: tuple[PassError, int] | None = None

    @property
    def current(self) -> PassError | None:
        """The error of the pass that is under way in this thread; None while the view is not being called.

        A reentrant checkpoint calls layers again in the backward pass. They belong to the pass whose error arrived in
        this backward pass last: autograd goes through passes one after the other, the latest first.
        """
        under_way = self._under_way.get(_thread()) or self._under_way.get(0)  # 0: begun by compiled code
        if under_way is None and self.arrived is not None and self.arrived[1] == _backward_pass() != -1:
            return self.arrived[0]
        return under_way

    def put_on(self, view: nn.Module) -> None:
        """Makes each call of the view a pass."""
        view = uncompiled(view)
        view.register_forward_pre_hook(self._begin)
        view.register_forward_hook(self._end)

    def _begin(self, view: nn.Module, arguments: Any) -> None:
        self._under_way[_thread()] = PassError()

    def _end(self, view: nn.Module, arguments: Any, output: Any) -> Any:
        error = self._under_way.pop(_thread())
        if not isinstance(output, Tensor) or output.dim() != 2 or output.shape[1] != self.outputs:
            returned = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"this rule was put on for outputs of shape [N, {self.outputs}], the model returns {returned};"
                " pass outputs=K"
            )
        return _Tap.apply(output, error, self)  # type: ignore[no-untyped-call]
