"""Nested mappings."""

from collections.abc import Mapping
from typing import Any


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `base` with what `over` says: mappings are merged, what is null is taken away."""
    whole = dict(base)
    for key, value in over.items():
        if value is None and key in base:
            del whole[key]
            continue
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        whole[key] = merged(base[key], value) if both else value
    return whole
