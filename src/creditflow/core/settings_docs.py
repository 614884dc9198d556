"""Describes settings in words and as JSON Schema, from the models that also check them.

The meaning of a field is the docstring below it. It is read from the source only when somebody asks: reading the
docstrings while the models are made would double the start-up time of the workflow.
"""

import ast
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticUndefined
from pydantic_core.core_schema import ModelSchema

from creditflow.core.settings import SettingsModel


@dataclass(frozen=True)
class Row:
    """One setting."""

    key: str
    """The name, with the names of what it lies in, such as `optimizer.kind`."""
    kind: str
    """Type and range in words, such as `integer, 1 to 100`."""
    default: str
    """The default as JSON; `required` without one, and `absent` where the key may be left out without a value in
    its place."""
    meaning: str
    """The docstring of the field, on one line."""


def describe(model: type[BaseModel], prefix: str = "", *, nested: bool = True) -> list[Row]:
    """Returns a row for each setting of a model, in the order of the source.

    Settings of a model within it follow the row of that model, where `nested` asks for them; their keys begin with
    `prefix`.
    """
    texts = meanings(model)
    rows = []
    for name, field in model.model_fields.items():
        kind = _words(field.annotation, field.metadata)
        rows.append(Row(prefix + name, kind, _default(field), texts.get(name, "")))
        inner = _model_in(field.annotation)
        if nested and inner is not None:
            model_within, place = inner
            rows += describe(model_within, f"{prefix}{name}.{place}")
    return rows


def as_text(model: type[BaseModel]) -> str:
    """Returns the settings of a model for a terminal: a line with key, type, range and default, and an indented one
    with the meaning."""
    lines = []
    for row in describe(model):
        lines += [f"{row.key}: {row.kind} [{row.default}]", f"    {row.meaning}"]
    return "\n".join(lines) or "nothing to set"


def as_markdown(model: type[BaseModel], *, nested: bool = True) -> str:
    """Returns the settings of a model as a table in Markdown; a line that says so where there are none."""
    rows = describe(model, nested=nested)
    if not rows:
        return "Nothing to set."
    cells = [(f"`{row.key}`", row.kind, f"`{row.default}`", row.meaning) for row in rows]
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in cells]
    return "\n".join(["| key | value | default | meaning |", "|:--|:--|:--|:--|", *lines])


def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Returns the docstring of each field of a model, its bases' fields included, on one line each."""
    texts: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, SettingsModel):
            texts |= meanings(base.part_of) if base.part_of is not None and "part_of" in vars(base) else {}
            texts |= _docstrings(base)
    return texts


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Returns the docstrings below the fields in the source of a class, without its bases'."""
    file = getattr(sys.modules.get(model.__module__), "__file__", None)
    classes = _classes(Path(file)) if file else {}
    body = classes[model.__name__].body if model.__name__ in classes else []
    texts = {}
    for statement, following in pairwise(body):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            texts[statement.target.id] = " ".join(str(following.value.value).split())
    return texts


@cache
def _classes(file: Path) -> dict[str, ast.ClassDef]:
    return {
        node.name: node
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8-sig")))
        if isinstance(node, ast.ClassDef)
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "absent"
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(exclude_unset=True))
    return json.dumps(value)


#: What plain types are called.
_WORDS = {int: "integer", float: "number", bool: "true or false", str: "text", NoneType: "null", Any: "any value"}


def _words(annotation: Any, metadata: "list[Any] | tuple[Any, ...]" = ()) -> str:
    """Returns a type with its range in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [limit for part in inner[1:] for limit in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return _words(inner[0], [*limits, *metadata])
    if origin is Literal:
        return " or ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_words(part, metadata) for part in inner if part is not NoneType)
    if origin in (tuple, list):
        return _ranged(f"list of {_plural(_words(inner[0]))}", metadata)
    if origin in (dict, Mapping):
        words = _words(inner[1])
        return "keys and values" if words in ("any value", "keys and values") else f"by name: {words}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys and values"
    return _ranged("keys and values" if annotation is dict else _WORDS[annotation], metadata)


def _plural(words: str) -> str:
    first, comma, rest = words.partition(",")
    return f"{first}s{comma}{rest}" if first in ("integer", "number", "text") else words


def _ranged(words: str, metadata: "list[Any] | tuple[Any, ...]") -> str:
    """Returns words with the limits that metadata sets, such as `integer, 1 to 100`."""
    limits = {
        name: getattr(part, name)
        for part in metadata
        for name in ("ge", "gt", "le", "lt", "min_length")
        if getattr(part, name, None) is not None
    }
    if words.startswith("list"):
        return f"{words}; at least {limits['min_length']}" if "min_length" in limits else words
    if "ge" in limits and "le" in limits:
        return f"{words}, {_number(limits['ge'])} to {_number(limits['le'])}"
    named = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return ", ".join([words, *(f"{named[name]} {_number(limits[name])}" for name in named if name in limits)])


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _model_in(annotation: Any) -> "tuple[type[BaseModel], str] | None":
    """Returns the model within an annotation, and what stands for the keys between, such as `<name>.`."""
    if isinstance(annotation, type):
        return (annotation, "") if issubclass(annotation, BaseModel) else None
    origin, inner = get_origin(annotation), get_args(annotation)
    innermost = next((model for part in inner if (model := _model_in(part)) is not None), None)
    if innermost is None or origin not in (dict, Mapping, tuple, list):
        return innermost
    return innermost[0], f"{'<name>' if origin in (dict, Mapping) else '<i>'}.{innermost[1]}"


class _DocumentedSchema(GenerateJsonSchema):
    """JSON Schema with the docstrings of fields as descriptions, and without titles that repeat names."""

    def model_schema(self, schema: ModelSchema) -> dict[str, Any]:
        made = super().model_schema(schema)
        made.pop("title", None)
        if "description" in made:
            made["description"] = " ".join(made["description"].split())
        texts = meanings(schema["cls"])
        for name, property_schema in made.get("properties", {}).items():
            property_schema.pop("title", None)
            if texts.get(name):
                property_schema["description"] = texts[name]
        return made


def json_schema(model: type[BaseModel], reference: str) -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a model; `reference` is the template of references, such as
    `#/$defs/{model}`."""
    return model.model_json_schema(schema_generator=_DocumentedSchema, ref_template=reference)
