"""Keys that are set, but have no effect because of other keys."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel


def idle_keys(settings: SettingsModel) -> dict[str, str]:
    """Returns, by the path of each key that is set but has no effect, the reason.

    A key counts as set if its value is not the default: a default that is written down misleads nobody.
    """
    idle = {path: reason for path, reason in settings.without_effect() if _is_set(settings, path.split("."))}
    for name in type(settings).model_fields:
        if isinstance(part := getattr(settings, name), SettingsModel):
            idle |= {f"{name}.{path}": reason for path, reason in idle_keys(part).items()}
    return idle


def check_effects(users: Iterable[SettingsModel], where: str) -> None:
    """Checks settings that are merged from common ones for several users, such as the populations of an experiment.

    Raises UserError, which begins with `where`, for a key that is set and has an effect for none of them.
    """
    idle: dict[str, str] = {}
    effective: set[str] = set()
    for settings in users:
        here = idle_keys(settings)
        idle |= here
        effective |= set(_set_keys(settings)) - here.keys()
    for path, reason in idle.items():
        if path not in effective:
            raise UserError(f"{where}: {path} has no effect {reason}; leave it out")


def _set_keys(settings: SettingsModel, above: str = "") -> Iterable[str]:
    """Yields the path of each key that is set, and of the keys in models and mappings within."""
    for name in type(settings).model_fields:
        yield from _paths(settings, name, above)


def _paths(settings: SettingsModel, name: str, above: str) -> Iterable[str]:
    if not _is_set(settings, [name]):
        return
    value = getattr(settings, name)
    yield f"{above}{name}"
    if isinstance(value, SettingsModel):
        yield from _set_keys(value, f"{above}{name}.")
    elif isinstance(value, Mapping):
        yield from (f"{above}{name}.{key}" for key in value)


def _is_set(settings: BaseModel, path: list[str]) -> bool:
    """Returns whether the key at a path has another value than its default."""
    name, *inner = path
    value: Any = getattr(settings, name)
    if inner and isinstance(value, BaseModel):
        return _is_set(value, inner)
    if inner:
        return isinstance(value, Mapping) and bool(value.get(inner[0]))
    default = type(settings).model_fields[name].get_default(call_default_factory=True)
    return bool(value != default)
