"""Kinds of attacks that a worst case has to contain, read from what the attacks' files declare; without torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from creditflow.core import plugins

#: The kinds that every audit needs.
REQUIRED = ("scale_free", "gradient_free", "transfer")

#: The kinds that an audit of retrieval needs.
REQUIRED_OF_RETRIEVAL = ("own_code", "class_code")


def required_of(task: str) -> tuple[str, ...]:
    """Returns the kinds that an audit of a task, "classification" or "retrieval", needs."""
    return REQUIRED_OF_RETRIEVAL if task == "retrieval" else REQUIRED


#: What each kind is, for messages.
_MEANINGS = {
    "scale_free": "an attack that the scale of the logits can't blind",
    "gradient_free": "an attack without gradients",
    "transfer": "an attack that transfers images from another network",
    "own_code": "an attack that leads away from the query's own code",
    "class_code": "an attack that leads away from the code of the query's classes",
}


def kinds(attack: str, parameters: Mapping[str, Any]) -> frozenset[str]:
    """Returns the kinds of an attack: some of `REQUIRED`, or one of `REQUIRED_OF_RETRIEVAL` for one on hash codes.

    Args:
        attack: its id.
        parameters: its settings as an experiment or a record has them. A cascade is of the kinds of its stages.

    Raises:
        UserError: if there is no such attack.
    """
    if attack in plugins.names("hash_attack"):
        aims_at_class = plugins.declared("hash_attack", attack, "aims_at_class", False)
        return frozenset({"class_code" if aims_at_class else "own_code"})
    if attack == "cascade":
        stages = stages_of(parameters)
        return frozenset(kind for stage in stages for kind in kinds(stage, parameters[stage]))
    uses_gradient = plugins.declared("attack", attack, "uses_gradient")
    uses_surrogate = plugins.declared("attack", attack, "uses_surrogate", False)
    facts = {
        "scale_free": plugins.declared("attack", attack, "scale_free", False),
        "gradient_free": not uses_gradient and not uses_surrogate,
        "transfer": uses_surrogate,
    }
    return frozenset(kind for kind, holds in facts.items() if holds)


def stages_of(parameters: Mapping[str, Any]) -> list[str]:
    """Returns the stages that a cascade with these settings runs, in their order."""
    order = plugins.settings_class("attack", "cascade").model_fields
    return [stage for stage in order if isinstance(parameters.get(stage), Mapping)]


def needs_surrogate(attack: str, parameters: Mapping[str, Any]) -> bool:
    """Returns whether an attack with these settings needs surrogates."""
    return "transfer" in kinds(attack, parameters)


def missing(attacks: Mapping[str, Mapping[str, Any]], required: Sequence[str] = REQUIRED) -> list[str]:
    """Returns a text for each required kind that none of the attacks is of: what it is, and which attacks are of it.

    `attacks` has the settings of each attack by its id.
    """
    kinds_met = {kind for attack, parameters in attacks.items() for kind in kinds(attack, parameters)}
    return [f"{_MEANINGS[kind]} ({', '.join(_attacks_of(kind))})" for kind in required if kind not in kinds_met]


def _attacks_of(kind: str) -> list[str]:
    if kind in REQUIRED_OF_RETRIEVAL:
        return [name for name in plugins.names("hash_attack") if kind in kinds(name, {})]
    single = [name for name in plugins.names("attack") if name != "cascade" and kind in kinds(name, {})]
    return [*single, "cascade"]
