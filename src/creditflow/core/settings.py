"""Settings: what can be set is declared once, as a pydantic model, and checked, documented and shown in help from
there.

A model lies in a file without torch beside what it configures. Each field has its range in its type or in
`Field(...)`, and a docstring below it that says what it means and in which unit:

    class Settings(SettingsModel):
        \"\"\"Parameters of PGD.\"\"\"

        steps: int = Field(5, ge=1, le=100_000)
        \"\"\"Number of steps.\"\"\"
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from creditflow.core.errors import UserError, one_line, suggestion

Settings = TypeVar("Settings", bound=BaseModel)
Item = TypeVar("Item")

#: The type of a field that holds several values of one type; a list is taken for it, too.
Many = Annotated[tuple[Item, ...], Field(strict=False)]


class SettingsModel(BaseModel):
    """Base of all settings: frozen, without unknown keys, without silent conversion, with finite numbers only.

    In a field of type tuple a list is welcome, as JSON and YAML have no tuples: declare it as `Many[int]`. A rule
    about several fields is a `@model_validator(mode="after")` that raises ValueError with a message that names the
    fields.
    """

    part_of: ClassVar["type[SettingsModel] | None"] = None
    """The model of which this one takes a part (see `core.parts`)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
    )

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields keys that the other keys leave without effect, each with the reason, such as "with kind: adam".

        A key of a model within is named by its path, such as `optimizer.momentum`. `core.effects` asks for these keys.
        """
        yield from ()


class NoSettings(SettingsModel):
    """For what has nothing to set."""


def parse(settings_class: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """Builds checked settings from plain values, such as JSON or YAML give them.

    Args:
        settings_class: the model of the settings.
        values: the values by name.
        where: the origin, which error messages begin with.

    Raises:
        UserError: one line for the first mistake: an unknown key (with the nearest known one), a missing key, a
            value of the wrong type or out of range, or a contradiction between keys.
    """
    try:
        return settings_class.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, settings_class)}") from None


def plain(settings: BaseModel) -> dict[str, Any]:
    """Returns settings as plain values, for records and fingerprints."""
    return settings.model_dump()


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Returns one line for the mistake that tells most.

    A misspelt key is one too many and perhaps one too few: the one too many comes first.
    """
    mistakes = error.errors(include_url=False)
    mistake = next((one for one in mistakes if one["type"] == "extra_forbidden"), mistakes[0])
    place, key = _place(mistake["loc"][:-1]), _place(mistake["loc"][-1:])
    inside = f"{place}: " if place else ""
    if mistake["type"] == "extra_forbidden":
        return f"{inside}unknown key {key!r}{suggestion(key, sorted(_known_keys(model, mistake['loc'][:-1])))}"
    if mistake["type"] == "missing":
        return f"{inside}{key} is missing"
    if mistake["type"] == "value_error":  # a rule about several keys; its message names them
        where = _place(tuple(step for step in mistake["loc"] if step != "[key]"))
        problem = one_line(mistake["ctx"]["error"])
        return f"{where}: {problem}" if where else problem
    complaint = f"must be {_requirement(mistake)}, not {_shown(mistake['input'])}{_near_miss(mistake)}"
    if mistake["loc"][-1:] == ("[key]",):
        place = _place(mistake["loc"][:-2])
        return f"{place}: a key {complaint}" if place else f"a key {complaint}"
    return f"{_place(mistake['loc'])} {complaint}"


#: What the mistakes of pydantic ask for, in our words; the braces are filled from the mistake's context.
_REQUIREMENTS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a text",
    "string_too_short": "a text of at least {min_length} characters",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "below {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "none_required": "null",
    "invalid_key": "a text",
}


def _requirement(mistake: ErrorDetails) -> str:
    words = _REQUIREMENTS.get(mistake["type"])
    if words is None:
        return f"valid ({mistake['msg']})"
    if mistake["type"] in ("too_short", "too_long") and isinstance(mistake["input"], Mapping):
        words = words.replace("a list of", "keys and values,")
    bounds = mistake.get("ctx", {})
    return words.format(**{name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in bounds.items()})


def _near_miss(mistake: ErrorDetails) -> str:
    """Returns "; did you mean ...?" where one of the possible words is close to the one that was given, and the number
    where a text was given that people read as one."""
    if not isinstance(mistake["input"], str):
        return ""
    if mistake["type"] in ("int_type", "float_type"):
        number = _read_as_number(mistake["input"])
        return "" if number is None else f"; write {number:.15g} without quotes"
    words = re.findall(r"'([^']*)'", str(mistake.get("ctx", {}).get("expected", "")))
    close = mistake["type"] == "literal_error" and get_close_matches(mistake["input"], words, n=1)
    return suggestion(mistake["input"], words) if close else ""


def _read_as_number(text: str) -> float | None:
    """Returns the number that a person sees in a text: with a comma for the point, a long minus, or wide digits."""
    plain_text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace(",", ".")
    try:
        number = float(plain_text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _place(location: tuple[int | str, ...]) -> str:
    """Returns where a mistake is, such as `optimizer.layer_rates.0`, on one line whatever the keys hold."""
    return " ".join(".".join(map(str, location)).split())


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> set[str]:
    """Returns the keys that a model, or one within it, knows at a location."""
    inside: Any = model
    for step in location:
        inside = _within(inside, step)
    innermost = _model_in(inside)
    return set() if innermost is None else set(innermost.model_fields)


def _within(annotation: Any, step: int | str) -> Any:
    """Returns the annotation of what lies at a key, or an index, of a value with this annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        known = isinstance(step, str) and step in annotation.model_fields
        return annotation.model_fields[str(step)].annotation if known else annotation
    inner, origin = get_args(annotation), get_origin(annotation)
    if origin is dict:
        return inner[1]
    if origin is Annotated or origin in (tuple, list):
        return _within(inner[0], step) if origin is Annotated else inner[0]
    return next((_within(part, step) for part in inner if part is not type(None)), annotation)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Returns the model within an annotation such as `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
