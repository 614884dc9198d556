"""Replaces attributes of torch while at least one context needs that, and restores them afterwards.

The replacements stand in for all threads. Each of them asks `scope.open_scopes` what this thread has opened, and does
what the original does in a thread that has opened nothing.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_ABSENT = object()


@dataclass(frozen=True)
class Patch:
    """An attribute to replace.

    Attributes:
        owner: the class or module that holds the attribute.
        name: name of the attribute.
        replace: takes the attribute as it is found, None if there is none, and returns what takes its place.
    """

    owner: Any
    name: str
    replace: Callable[[Any], Any]


class Patches:
    """Patches that are in place as long as somebody holds them. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders = 0
        self._installed: list[tuple[Patch, Any, Any]] = []

    def hold(self, patches: list[Patch]) -> None:
        """Installs those patches that are not in place yet. Each call needs a call of `release`."""
        with self._lock:
            self._holders += 1
            self._add(patches)

    def extend(self, patches: list[Patch]) -> None:
        """Installs further patches for as long as the present holders hold theirs; does nothing if there is none."""
        with self._lock:
            if self._holders:
                self._add(patches)

    def release(self) -> None:
        """Restores all attributes if nobody else holds the patches."""
        with self._lock:
            self._holders -= 1
            while not self._holders and self._installed:
                patch, original, replacement = self._installed.pop()
                if vars(patch.owner).get(patch.name) is not replacement:
                    continue  # somebody else has replaced it in the meantime, and may call the replacement
                if original is _ABSENT:
                    delattr(patch.owner, patch.name)
                else:
                    setattr(patch.owner, patch.name, original)

    def _add(self, patches: list[Patch]) -> None:
        present = {(id(patch.owner), patch.name) for patch, _, _ in self._installed}
        for patch in patches:
            if (id(patch.owner), patch.name) not in present:
                original = vars(patch.owner).get(patch.name, _ABSENT)
                replacement = patch.replace(None if original is _ABSENT else original)
                setattr(patch.owner, patch.name, replacement)
                self._installed.append((patch, original, replacement))
