"""What tables and figures say of a learning rule: its title, its place, its style, and the bits that it transports.

A rule's own file (in `feedback/rules` or `populations/rules`) declares all of it. It is read from the text of that
file, so that torch is not imported. A rule that is implemented in both folders declares the same in both.
"""

import math
from collections.abc import Collection
from typing import Any

import pandas as pd

from creditflow.core import plugins
from creditflow.core.matched import HEAD_ONLY, is_control, matched_to, trained_by

_KINDS = ("rule", "update_rule")
_NOT_DECLARED = object()

#: Styles of rules that declare none, in the colours of Okabe and Ito's palette that are left.
_SPARE_STYLES = (
    {"color": "#999999", "marker": "h"},
    {"color": "#F0E442", "marker": "*"},
)


def rule_title(rule: str) -> str:
    """Returns a rule's name as papers write it; its id if it declares no title or is no rule.

    A network of backpropagation that is matched in accuracy to a rule's (see `core.matched`) is called after both.
    """
    if rule == HEAD_ONLY:
        return f"{rule_title(trained_by(rule))}, head only"
    matched = matched_to(rule)
    if matched is not None:
        return f"{rule_title(trained_by(rule))}, as accurate as {rule_title(matched)}"
    return str(_declared(rule, "title", rule))


def rule_order(rules: Collection[str]) -> list[str]:
    """Returns rule ids in the papers' order; those that declare no place come last, by their ids.

    A network that is matched in accuracy to a rule's follows it, and one of which only the head is trained follows
    backpropagation's.
    """

    def place(rule: str) -> tuple[float, str, bool]:
        followed = matched_to(rule) or trained_by(rule)
        return _declared(followed, "order", math.inf), followed, is_control(rule)

    return sorted(set(rules), key=place)


def by_rule_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns rows in the papers' order of their column `rule`. Rows of the same rule keep their order."""
    places = {rule: place for place, rule in enumerate(rule_order(set(rows.rule)))}
    return rows.sort_values("rule", key=lambda rules: rules.map(places), kind="stable")


def without_matched(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows without those of controls, such as networks that are matched in accuracy to a rule's.

    Figures that compare rules leave controls out.
    """
    return rows[~rows.rule.map(is_control).astype(bool)]


def transported_bits(rule: str) -> int | None:
    """Returns how many bits of each weight W a rule's V uses; None if the rule does not declare it."""
    bits: int | None = _declared(trained_by(rule), "transported_bits", None)
    return bits


def rule_style(rule: str, rules: Collection[str]) -> dict[str, str]:
    """Returns matplotlib's `color` and `marker` of a rule that a figure draws beside other rules.

    The colours are Okabe and Ito's, which colour-blind readers can tell apart; the markers can be told apart in a
    black-and-white print, too. Rules that declare no style share the spare styles, in the order of `rules`.
    """
    style = _declared_style(rule)
    if style is not None:
        return style
    without_style = [name for name in rules if _declared_style(name) is None]
    return _SPARE_STYLES[without_style.index(rule) % len(_SPARE_STYLES)]


def _declared_style(rule: str) -> dict[str, str] | None:
    color, marker = _declared(rule, "color", None), _declared(rule, "marker", None)
    return {"color": color, "marker": marker} if color and marker else None


def _declared(rule: str, fact: str, default: Any) -> Any:
    """Returns a fact that a rule's file declares; the default if none does."""
    for kind in _KINDS:
        if rule in plugins.names(kind):
            value = plugins.declared(kind, rule, fact, _NOT_DECLARED)
            if value is not _NOT_DECLARED:
                return value
    return default
