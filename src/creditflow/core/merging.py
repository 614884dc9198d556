"""Nested mappings: merging them, as an experiment with the one that it extends, and writing them in one line."""

import json
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


def compact_json(value: Any) -> str:
    """Returns a value of a YAML file as JSON in one line, with keys in order: numbers first, then text.

    JSON knows text as keys only, so that the key 0.1 becomes "0.1".
    """
    return json.dumps(in_order(value))


def in_order(value: Any) -> Any:
    """Returns a value of a YAML file with the keys of all its mappings in order: numbers first, then text."""
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (isinstance(key, str), key if isinstance(key, str | int | float) else 0))
        return {key: in_order(value[key]) for key in keys}
    if isinstance(value, list | tuple):
        return [in_order(member) for member in value]
    return value
