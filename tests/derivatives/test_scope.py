"""The open contexts of a thread are kept as long as they are open, in each version of torch."""

import ctypes
import gc
import sys
import weakref
from collections.abc import Iterator

import pytest
import torch

from creditflow.derivatives import scope as module
from creditflow.derivatives.scope import Scope, enter, leave, open_scopes


@pytest.fixture(params=["adds a reference", "takes a reference"])
def torch_that(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This version of torch, and one that takes over a reference of its caller, as torch 2.11 does."""
    stash = torch._C._stash_obj_in_tls

    def taking(key: str, kept: object) -> None:
        stash(key, kept)
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(kept))

    if request.param == "takes a reference":
        monkeypatch.setattr(torch._C, "_stash_obj_in_tls", taking)
    module._takes_reference.cache_clear()
    yield request.param
    module._takes_reference.cache_clear()


def test_open_contexts_are_kept_and_closed_ones_are_freed(torch_that: str) -> None:
    scopes = [Scope((), "error") for _ in range(3)]
    alive = [weakref.ref(scope) for scope in scopes]
    for number, scope in enumerate(scopes, 1):
        enter(scope)
        kept = torch._C._get_obj_in_tls(module._KEY)
        assert sys.getrefcount(kept) == 3  # torch's, `kept`, and the argument's
        del kept
        noise = [(object(),) * (number % 4) for _ in range(1000)]  # would take the place of a tuple that was freed
        assert open_scopes() == tuple(scopes[:number])
        del noise
    for scope in (scopes[1], scopes[2], scopes[0]):
        leave(scope)
    assert open_scopes() == ()
    del scope, scopes
    gc.collect()
    assert [reference() for reference in alive] == [None] * 3
