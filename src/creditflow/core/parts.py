"""Parts of settings: some of the keys, which are merged with others before the whole is checked."""

from copy import copy
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import create_model
from pydantic.fields import FieldInfo

from creditflow.core.settings import SettingsModel


@cache
def part_of(model: type[SettingsModel]) -> type[SettingsModel]:
    """Returns a model that takes some of another model's keys: no key is required, and each is checked by itself.

    Keys of models within it are optional, too. Rules about several keys are not checked: only the merged whole can obey
    them. `model_dump(exclude_unset=True)` returns the keys that were given.
    """
    fields: dict[str, Any] = {name: _optional(field) for name, field in model.model_fields.items()}
    part: type[SettingsModel] = create_model(
        f"{model.__name__}Part", __base__=SettingsModel, __doc__=model.__doc__, **fields
    )
    part.part_of = model
    return part


def _optional(field: FieldInfo) -> tuple[Any, FieldInfo]:
    optional = copy(field)
    optional.default, optional.default_factory, optional.validate_default = None, None, False
    optional._attributes_set = {**field._attributes_set, "default": None, "validate_default": False}
    return _with_parts(field.annotation), optional


def _with_parts(annotation: Any) -> Any:
    """Returns an annotation such as `Model | None` with the part of each model in its place."""
    if isinstance(annotation, type) and issubclass(annotation, SettingsModel):
        return part_of(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (UnionType, Union):
        return reduce(or_, map(_with_parts, inner))
    return annotation
