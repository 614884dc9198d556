"""Names of networks that are controls: backpropagation trains them to another rule's accuracy, or the head alone.

A rule that learns less well may seem more robust only because its network is less accurate. The network
`bp_matched_<rule>` settles this: it has the rule's start, data, settings and seed, is trained by backpropagation, and
stops as soon as its clean accuracy is at least that of the rule's network.

The network `bp_head_only` shows what the start brings along: its head is trained, and nothing below it changes. Its
training is the same under all rules, as each rule gives the head its exact gradient.

This file imports nothing heavy.
"""

from collections.abc import Mapping
from typing import Any

_PREFIX = "bp_matched_"

#: The name of a network of which only the head is trained.
HEAD_ONLY = "bp_head_only"


def matched_name(rule: str) -> str:
    """Returns the name of the network of backpropagation that is as accurate as the rule's."""
    return f"{_PREFIX}{rule}"


def matched_to(name: str) -> str | None:
    """Returns the rule whose accuracy a network of this name has; None for the name of a rule."""
    return name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else None


def trained_by(name: str) -> str:
    """Returns the id of the rule that trains a network of this name."""
    return "bp" if is_control(name) else name


def controls_of(keys: Mapping[str, Any]) -> list[str]:
    """Returns the names of the controls that an experiment of these keys trains."""
    finetune: Mapping[str, Any] = keys.get("finetune", {})
    head_only = [HEAD_ONLY] if finetune.get("head_only", False) else []
    return [matched_name(rule) for rule in finetune.get("matched", [])] + head_only


def is_control(name: str) -> bool:
    """Returns whether a network of this name is a control, and not one that its rule trains to the end."""
    return name == HEAD_ONLY or matched_to(name) is not None
