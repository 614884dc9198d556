"""Which `exact_gradients` contexts are open in this thread, which modules they cover, and what they have undone.

The open contexts are kept in torch's thread-local state, not in Python's: a backward pass on a GPU runs in threads of
autograd's engine, which inherit torch's state from the thread that started the pass.
"""

import ctypes
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, cast

import torch
from torch import nn

#: What happens where a function's forward pass carries no gradient: an error, or its output counts as a constant.
Missing = Literal["error", "zero"]

_KEY = "creditflow.exact_gradients"


@dataclass(eq=False)
class Undone:
    """What an `exact_gradients` context has met so far; the names are `package.module.Class`.

    Attributes:
        functions: names of the functions whose own backward pass was replaced by the derivative of their forward pass.
        constants: names of those among them whose output carried no gradient and counts as a constant
            (only with `missing="zero"`).
    """

    functions: set[str] = field(default_factory=set)
    constants: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Scope:
    """One open context: its models, what it does about missing gradients, and what it has undone."""

    models: tuple[nn.Module, ...]
    missing: Missing
    undone: Undone = field(default_factory=Undone)
    open: bool = True
    _modules: dict[int, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self._modules = {id(module): module for model in self.models for module in model.modules()}

    def covers(self, module: nn.Module) -> bool:
        """Tells whether a module belongs to the models of this context; without models, every module does."""
        if not self.models or id(module) in self._modules:
            return True
        # The module may have been put into a model after the context was entered.
        return any(module is part for model in self.models for part in model.modules())


def open_scopes() -> tuple[Scope, ...]:
    """Returns the open contexts that this thread entered, or whose backward pass it runs; the innermost is the last."""
    if not torch._C._is_key_in_tls(_KEY):
        return ()
    scopes = cast(tuple[Scope, ...], torch._C._get_obj_in_tls(_KEY))
    return tuple(scope for scope in scopes if scope.open)


def enter(scope: Scope) -> None:
    """Opens a context in this thread."""
    _keep((*open_scopes(), scope))


def leave(scope: Scope) -> None:
    """Closes a context; contexts may be closed in any order."""
    scope.open = False
    _keep(open_scopes())


def _keep(scopes: tuple[Scope, ...]) -> None:
    if _takes_reference():
        _add_reference(scopes)
    torch._C._stash_obj_in_tls(_KEY, scopes)


@cache
def _takes_reference() -> bool:
    """Tells whether torch takes over a reference of its caller to what it keeps, instead of adding one of its own.

    Older versions do (2.11 does, 2.13 does not). Without one more reference the object would be freed while it is kept.
    """
    probe: list[object] = []
    before = sys.getrefcount(probe)
    torch._C._stash_obj_in_tls(f"{_KEY}.probe", probe)
    taken = sys.getrefcount(probe) == before
    if taken:
        _add_reference(probe)
    return taken


def _add_reference(kept: object) -> None:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def covered(module: nn.Module) -> bool:
    """Tells whether an open context of this thread covers a module."""
    return any(scope.covers(module) for scope in open_scopes())
