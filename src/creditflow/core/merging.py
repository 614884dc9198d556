"""Merging of nested mappings, such as an experiment and the experiment that it extends."""

from collections.abc import Mapping
from typing import Any


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with the values of `over` in it.

    Where both hold a mapping, the two are merged. A key that is null in `over` is removed; if `base` does not have the
    key, it stays null.
    """
    whole = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            del whole[key]
            continue
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        whole[key] = merged(base[key], value) if both else value
    return whole
