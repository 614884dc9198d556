"""Leaves out hooks that can replace gradients: modules' backward hooks, and tensors' hooks.

Modules decide at the start of each call which hooks they use, so it suffices to answer that question differently.
Hooks on parameters and buffers are called by autograd itself from a dictionary; there, each is wrapped for as long as a
context is open. Hooks that a model's own code registers on tensors inside a context are not registered at all.
"""

import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from creditflow.derivatives.patches import Patch
from creditflow.derivatives.scope import Scope, covered, open_scopes

_LOCK = threading.RLock()


def patches() -> list[Patch]:
    """Returns what to replace in torch so that backward hooks are left out."""
    return [
        Patch(nn.Module, "_get_backward_hooks", functools.partial(_without, empty=lambda: ([], []))),
        Patch(nn.Module, "_get_backward_pre_hooks", functools.partial(_without, empty=list)),
        Patch(Tensor, "register_hook", _unless_in_model),
        Patch(Tensor, "register_post_accumulate_grad_hook", _unless_in_model),
    ]


def _without(original: Callable[[nn.Module], Any], empty: Callable[[], Any]) -> Callable[[nn.Module], Any]:
    """Returns a method that gives a module's hooks, the global ones included, or none for a module that is covered."""

    @functools.wraps(original)
    def hooks(module: nn.Module) -> Any:
        return empty() if covered(module) else original(module)

    return hooks


def _unless_in_model(original: Callable[[Tensor, Any], Any]) -> Callable[[Tensor, Any], Any]:
    """Returns a method that registers a hook on a tensor, unless the code of a covered module asks for it.

    Hooks of torch's own code stay, and so do hooks of whoever uses the model.
    """

    @functools.wraps(original)
    def register(tensor: Tensor, hook: Any) -> Any:
        caller = sys._getframe(1)
        is_torch = str(caller.f_globals.get("__name__")).partition(".")[0] == "torch"
        if open_scopes() and not is_torch and any(map(covered, _modules_at_work(caller))):
            return RemovableHandle(OrderedDict())  # its `remove` does nothing
        return original(tensor, hook)

    return register


def _modules_at_work(frame: FrameType | None) -> Iterator[nn.Module]:
    """Yields the modules whose methods are being executed: `self` of each method, or of the method around a function.

    A function that somebody hands a model to, such as an attack, is no method of it.
    """
    while frame is not None:
        code = frame.f_code
        if "self" in (*code.co_varnames[: min(1, code.co_argcount)], *code.co_freevars):
            value = frame.f_locals.get("self")
            if isinstance(value, nn.Module):
                yield value
        frame = frame.f_back


class _Guarded:
    """A hook on a parameter or buffer; it is not called where one of its contexts is open."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook
        self.scopes: list[Scope] = []

    def __call__(self, *arguments: Any) -> Any:
        if any(scope in self.scopes for scope in open_scopes()):
            return None
        return self.hook(*arguments)


def guard(scope: Scope) -> list[tuple[dict[int, Any], int]]:
    """Wraps the hooks that lie on parameters and buffers of the models; `unguard` takes the result back."""
    guarded = []
    with _LOCK:
        for hooks in _hooks_of_tensors(scope):
            for key, hook in list(hooks.items()):
                wrapper = hook if isinstance(hook, _Guarded) else _Guarded(hook)
                wrapper.scopes.append(scope)
                hooks[key] = wrapper
                guarded.append((hooks, key))
    return guarded


def unguard(scope: Scope, guarded: list[tuple[dict[int, Any], int]]) -> None:
    """Takes the wrappers of `guard` off, unless another context needs them or the hook was removed."""
    with _LOCK:
        for hooks, key in guarded:
            hook = hooks.get(key)
            if isinstance(hook, _Guarded):
                hook.scopes.remove(scope)
                if not hook.scopes:
                    hooks[key] = hook.hook


def _hooks_of_tensors(scope: Scope) -> Iterator[dict[int, Any]]:
    """Yields each dictionary of hooks once."""
    tensors = {id(tensor): tensor for model in scope.models for tensor in (*model.parameters(), *model.buffers())}
    for tensor in tensors.values():
        for hooks in (tensor._backward_hooks, getattr(tensor, "_post_accumulate_grad_hooks", None)):
            if hooks:
                yield hooks
