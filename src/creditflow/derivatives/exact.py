"""`exact_gradients`: inside this context, autograd differentiates what a model computes, whatever its layers claim."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, get_args

import torch
from torch import nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback

from creditflow.core.errors import UserError
from creditflow.derivatives import functions, hooks
from creditflow.derivatives.patches import Patch, Patches
from creditflow.derivatives.scope import Missing, Scope, Undone, enter, leave, open_scopes

_PATCHES = Patches()


@contextmanager
def exact_gradients(*models: nn.Module, missing: Missing = "error") -> Iterator[Undone]:
    """Makes autograd differentiate what the models compute, in place of the backward passes that they define.

    A `torch.autograd.Function` may have any backward: feedback alignment, a surrogate gradient, a straight-through
    estimator. Inside the context its forward runs under autograd instead, so that the chain rule of the forward pass
    decides. This holds for both styles of functions, for functions inside functions and inside activation checkpoints,
    and for `MyFunction.apply` that was stored beforehand. Outside, everything is as before, also after an exception.

    ```
    with exact_gradients(model):
        images.requires_grad_()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
    ```

    Run the forward and the backward pass inside: a checkpoint computes a part of the forward in the backward pass.

    What is left out inside:
        - backward hooks of the models' modules, full, legacy, pre-hooks, and the global ones as far as these modules
          are concerned. Without models, every module counts.
        - hooks on the models' parameters and buffers (`register_hook`, `register_post_accumulate_grad_hook`), and
          hooks on any tensor that the models' own code registers inside. Hooks that the user of a model registers on
          the input or the output stay.
        - `mark_non_differentiable`, `set_materialize_grads`, `once_differentiable` and `jvp` of the functions, as they
          belong to the derivative that a function claims.
        - `torch.compile`: models run uncompiled.

    What stays: functions of torch itself (of the package `torch`), operators that C++ or `torch.library` gave a
    backward, hooks on the nodes of a graph and on saved tensors, and tricks without a function such as
    `x + (round(x) - x).detach()`. `check_gradient` finds these, since it compares with numbers.

    A function may change its intermediate results in place; what autograd saves of them is copied, which takes memory.

    The context counts for this thread and for the backward passes that this thread starts. Contexts may be nested; the
    innermost `missing` counts.

    Args:
        models: the modules whose hooks are left out. Functions are undone wherever this thread meets them.
        missing: what to do if an argument of a function requires a gradient (or has a tangent) and a floating-point
            output does not. Either the function hides its operations from autograd (`no_grad`, `detach`, numpy, a
            foreign kernel), or its derivative is zero almost everywhere (a step function: `(x > 0).float()`).
            Autograd cannot tell these two apart. `"error"` raises UserError. `"zero"` takes the output as a constant,
            which is exact for step functions only. A forward that hides only some of its arguments is not noticed.

    Yields:
        The names of the functions that have been undone so far, and of those whose output counts as a constant.

    Raises:
        UserError: if a function's forward carries no gradient or cannot run under autograd (in place on a leaf,
            `.numpy()`), with the function's name; if a backward pass inside reaches a function whose forward ran
            outside; if `models` are no modules or `missing` is no known word.
    """
    _check(models, missing)
    scope = Scope(models, missing)
    with ExitStack() as stack:
        _PATCHES.hold(_patches())
        stack.callback(_PATCHES.release)
        stack.callback(hooks.unguard, scope, hooks.guard(scope))
        enter(scope)
        stack.callback(leave, scope)
        yield scope.undone


def _check(models: tuple[Any, ...], missing: str) -> None:
    for model in models:
        if not isinstance(model, nn.Module):
            raise UserError(f"exact_gradients takes torch modules, not {type(model).__name__}: give the modules in it")
    if get_eval_frame_callback() is not None:
        raise UserError("exact_gradients cannot be entered in compiled code: enter it around the compiled function")
    if missing not in get_args(Missing):
        raise UserError(f"missing={missing!r} is unknown: choose from {', '.join(map(repr, get_args(Missing)))}")


def _patches() -> list[Patch]:
    return [*functions.patches(), *hooks.patches(), Patch(torch, "compile", _compile), *_compiler_patches()]


def _compiler_patches() -> list[Patch]:
    """Returns what makes compiled code run uncompiled; nothing if the compiler, slow to import, is not loaded."""
    compiler = sys.modules.get("torch._dynamo.eval_frame")
    return [] if compiler is None else [Patch(compiler, "_callback_from_stance", _uncompiled)]


def _uncompiled(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns what answers the compiler's question how to run a compiled function: None means uncompiled."""

    @functools.wraps(original)
    def callback(compiled: Any) -> Any:
        return None if open_scopes() else original(compiled)

    return callback


def _compile(original: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `torch.compile` that also heeds the context if it is what loads the compiler."""

    @functools.wraps(original)
    def compile_(*arguments: Any, **options: Any) -> Any:
        compiled = original(*arguments, **options)
        _PATCHES.extend(_compiler_patches())
        return compiled

    return compile_
