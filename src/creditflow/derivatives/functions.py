"""Undoes `torch.autograd.Function`: its forward pass runs under autograd, and its backward pass is not used.

`MyFunction.apply` is often stored long before a context is entered. All such methods share the Python body of
`Function.apply`, and this body ends in a call of `super().apply`, or of `custom_function_call` under the transforms of
`torch.func`. So these two are replaced, and a stored method is undone, too.
"""

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd import function as torch_functions
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.autograd.graph import saved_tensors_hooks

from creditflow.core.errors import UserError, one_line
from creditflow.derivatives.patches import Patch
from creditflow.derivatives.scope import Scope, open_scopes

#: How torch says that an operation cannot be recorded, although the same operation works without autograd.
_UNRECORDED = re.compile(
    r"requires? grad|requires_grad|in-?place|automatic differentiation|deepcopy protocol|cannot be saved for backward",
    re.IGNORECASE,
)


class StandIn(FunctionCtx):
    """The `ctx` of a function whose forward pass runs under autograd. It has no other use than to please the forward.

    Attributes:
        needs_input_grad: for each argument of `apply`, whether it is a tensor that requires a gradient.
    """

    def __init__(self, function: type[Any], arguments: tuple[Any, ...]) -> None:
        self._forward_cls = function
        self.needs_input_grad = tuple(isinstance(value, Tensor) and value.requires_grad for value in arguments)
        self.materialize_grads = True
        self.metadata: dict[Any, Any] = {}
        self.to_save: tuple[Any, ...] = ()
        self.saved_for_forward: tuple[Any, ...] = ()
        self.dirty_tensors: tuple[Any, ...] = ()
        self.non_differentiable: tuple[Any, ...] = ()

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved for the backward pass, or else for forward mode."""
        return self.to_save or self.saved_for_forward

    def name(self) -> str:
        """Returns the name that the node of the function has in a graph."""
        return f"{self._forward_cls.__name__}Backward"


def patches() -> list[Patch]:
    """Returns what to replace in torch so that functions are undone."""
    single_level = torch_functions._SingleLevelFunction
    backward = [name for name in ("apply", "apply_boxed") if hasattr(BackwardCFunction, name)]
    return [
        Patch(single_level, "apply", lambda _: classmethod(_apply)),
        Patch(torch_functions, "custom_function_call", _custom_function_call),
        *(Patch(BackwardCFunction, name, _own_backward) for name in backward),
    ]


def title(function: type[Any]) -> str:
    """Returns `package.module.Class` of a function."""
    return f"{function.__module__}.{function.__qualname__}"


def _foreign(function: type[Any]) -> bool:
    """Tells whether a function is not torch's own. Torch's own ones, such as checkpointing, are left alone."""
    return function.__module__.partition(".")[0] != "torch"


def _apply(function: Any, *arguments: Any, **options: Any) -> Any:
    """Takes the place of the `apply` of C++ that builds a node of the graph."""
    scopes = open_scopes()
    if scopes and _foreign(function):
        return _undo(scopes, function, arguments, options)
    return super(torch_functions._SingleLevelFunction, function).apply(*arguments, **options)


def _custom_function_call(original: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what takes the place of the call under the transforms of `torch.func`."""

    def call(function: type[Any], *arguments: Any, **options: Any) -> Any:
        scopes = open_scopes()
        if scopes and _foreign(function):
            return _undo(scopes, function, arguments, options)
        return original(function, *arguments, **options)

    return call


def _own_backward(original: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what takes the place of the call of a function's own backward pass."""

    @functools.wraps(original)
    def backward(node: Any, *gradients: Any) -> Any:
        if open_scopes() and _foreign(node._forward_cls):
            raise UserError(
                f"a backward pass inside exact_gradients meets {title(node._forward_cls)}, whose forward pass ran "
                "outside: run the forward pass inside the context, too"
            )
        return original(node, *gradients)

    return backward


def _undo(scopes: tuple[Scope, ...], function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Returns what the function computes, as autograd records it."""
    for scope in scopes:
        scope.undone.functions.add(title(function))
    ctx = StandIn(function, arguments)
    records, has_tangents = _records(arguments), any(map(_has_tangent, arguments))
    try:
        with _changes_allowed(function, arguments) if records else nullcontext():
            if function.setup_context is torch_functions.Function.setup_context:
                outputs = function.forward(ctx, *arguments, **options)
            else:
                outputs = function.forward(*arguments, **options)
                function.setup_context(ctx, arguments, outputs)
    except (RuntimeError, BufferError) as error:
        if records and _UNRECORDED.search(str(error)):
            raise UserError(
                f"the forward pass of {title(function)} cannot be differentiated, so the exact gradient does not "
                f"exist: {one_line(error)}"
            ) from error
        raise
    outputs = tuple(outputs) if isinstance(outputs, tuple) else outputs  # `apply` gives no named tuples either
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        if _missing(output, ctx, records, has_tangents):
            _report(scopes, function)
    if isinstance(outputs, tuple):
        return tuple(_fresh(output, arguments, ctx) for output in outputs)
    return _fresh(outputs, arguments, ctx)


@contextmanager
def _changes_allowed(function: type[Any], arguments: tuple[Any, ...]) -> Iterator[None]:
    """Within the block, a forward may change its intermediate results in place, as without autograd.

    What autograd saves of them is copied at once. Arguments are not copied, since most functions save these only and
    leave them as they are; if an argument was changed after all, the backward pass raises UserError.
    """
    enabled: bool = torch._C._autograd._saved_tensors_hooks_is_enabled()  # type: ignore[attr-defined]
    if not enabled or torch._C._are_functorch_transforms_active():
        yield  # torch allows no such hooks there; a change raises torch's own error in the backward pass
        return
    tensors = [value for value in arguments if isinstance(value, Tensor) and not value.is_inference()]

    def pack(tensor: Tensor) -> tuple[Tensor, int | None]:
        if any(_same_memory(tensor, value) and tensor._version == value._version for value in tensors):
            return tensor, tensor._version
        return tensor.clone(), None

    def unpack(packed: tuple[Tensor, int | None]) -> Tensor:
        tensor, version = packed
        if version is not None and tensor._version != version:
            raise UserError(
                f"the exact gradient needs an argument of {title(function)} as it was, but it has been changed in place"
            )
        return tensor

    with saved_tensors_hooks(pack, unpack):
        yield


def _same_memory(tensor: Tensor, argument: Tensor) -> bool:
    alike = tensor.layout == argument.layout == torch.strided and tensor.device == argument.device
    return alike and tensor.dtype == argument.dtype and tensor.is_set_to(argument)


def _records(arguments: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(value, Tensor) and value.requires_grad for value in arguments)


def _has_tangent(value: Any) -> bool:
    return isinstance(value, Tensor) and forward_ad.unpack_dual(value).tangent is not None


def _missing(output: Any, ctx: StandIn, records: bool, has_tangents: bool) -> bool:
    """Tells whether an output carries no derivative, although an input does and the output is a number."""
    if not isinstance(output, Tensor) or not (output.is_floating_point() or output.is_complex()):
        return False
    if any(output is marked for marked in ctx.non_differentiable):
        return False
    return (records and not output.requires_grad) or (has_tangents and not _has_tangent(output))


def _report(scopes: tuple[Scope, ...], function: type[Any]) -> None:
    """Says that a function's output carries no derivative: as an error, or in what the contexts have undone."""
    if scopes[-1].missing == "error":
        raise UserError(
            f"the forward pass of {title(function)} carries no gradient: it is a step function or hides its operations "
            'from autograd (no_grad, detach, numpy, a foreign kernel); missing="zero" takes its output as a constant'
        )
    for scope in scopes:
        scope.undone.constants.add(title(function))


def _fresh(output: Any, arguments: tuple[Any, ...], ctx: StandIn) -> Any:
    """Returns an output as a tensor of its own, as `apply` does: an argument that is returned as it was is aliased."""
    if not isinstance(output, Tensor) or any(output is changed for changed in ctx.dirty_tensors):
        return output
    if not any(output is value for value in arguments):
        return output
    return output.detach() if output.requires_grad and not torch.is_grad_enabled() else output.view_as(output)
