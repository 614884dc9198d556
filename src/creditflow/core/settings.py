"""Turns JSON objects from an experiment or the command line into checked, frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from creditflow.core.errors import UserError
from creditflow.core.plugins import suggestion

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class NoSettings:
    """For what has nothing to set."""


def parse(settings_class: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Builds a settings dataclass from plain values.

    `where` names the origin in error messages. Raises UserError for an unknown or missing key, a value of the
    wrong type, and a value that the dataclass's own `__post_init__` rejects with ValueError.
    """
    hints = get_type_hints(settings_class)
    for key, value in values.items():
        if key not in hints:
            raise UserError(f"{where}: unknown key {key!r}{suggestion(key, sorted(hints))}")
        if not _fits(value, hints[key]):
            raise UserError(f"{where}: {key} must be {_name(hints[key])}, not {value!r}")
    for field in fields(settings_class):  # type: ignore[arg-type]
        if field.default is MISSING and field.default_factory is MISSING and field.name not in values:
            raise UserError(f"{where}: {field.name} is missing")
    try:
        return settings_class(**values)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _fits(value: Any, hint: Any) -> bool:
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(hint, UnionType):
        return any(_fits(value, member) for member in get_args(hint))
    return isinstance(value, get_origin(hint) or hint)


def _name(hint: Any) -> str:
    return {float: "a number", int: "an integer", bool: "true or false", str: "a text"}.get(hint, str(hint))
