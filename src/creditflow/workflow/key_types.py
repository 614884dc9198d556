"""Types that several sections of an experiment share: names, seeds, gradients, and the base of all sections."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from creditflow.core.errors import UserError
from creditflow.core.gradients import parse_gradient
from creditflow.core.settings import Many, SettingsModel


def _each_once(values: Sequence[Any]) -> Sequence[Any]:
    """Refuses a list in which a value stands twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value!r} stands twice; take one away")
    return values


#: Of a list: no value stands in it twice.
ONCE = AfterValidator(_each_once)

#: An id or a name that becomes part of paths: lower-case words that are joined by _.
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$", max_length=100)]

Names = Annotated[Many[Name], Field(min_length=1), ONCE]

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

Seeds = Annotated[Many[Seed], Field(min_length=1), ONCE]


def _attackers_gradient(text: str) -> str:
    """Refuses what is no gradient, and what an experiment does not choose."""
    try:
        kind = parse_gradient(text).kind
    except UserError as error:
        raise ValueError(str(error)) from None
    if kind in ("surrogate", "none"):
        raise ValueError(f"{text!r} is not chosen: attacks that use no gradient of the network get it by themselves")
    return text


def _gradient_or_through(text: str) -> str:
    return text if text == "through" else _attackers_gradient(text)


_GRADIENT = r"exact|own|feedback|through:[a-z0-9_]+(:[0-9]+)?"

#: What an attacker differentiates, as `core.gradients` spells it.
Gradient = Annotated[
    str, AfterValidator(_attackers_gradient), WithJsonSchema({"type": "string", "pattern": f"^({_GRADIENT})$"})
]

Gradients = Annotated[Many[Gradient], Field(min_length=1), ONCE]

#: Such a gradient, or `through` for all that run through fresh feedback weights.
GradientGroup = Annotated[
    str, AfterValidator(_gradient_or_through), WithJsonSchema({"type": "string", "pattern": f"^({_GRADIENT}|through)$"})
]


class Section(SettingsModel):
    """A part of an experiment. A key that says nothing is left out: null only takes a key of `extends` away."""

    @model_validator(mode="before")
    @classmethod
    def _says_something(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, Mapping) else ():
            if value is None:
                raise ValueError(f"{key} is null, which only takes away what `extends` brings; leave {key} out")
        return values
