"""What tables and heat maps of networks against attackers say: the order of their columns, and their words."""

import math
from collections.abc import Iterable

import pandas as pd

from creditflow.core.given import GIVEN_MODELS
from creditflow.core.gradients import parse_gradient
from creditflow.reporting.names import display, display_of, span
from creditflow.reporting.rules import by_rule_order, rule_order, rule_title

#: Kinds of attackers' gradients in a matrix of gradients, and in one of surrogates.
GRADIENTS, SURROGATES = ("exact", "own", "feedback", "through"), ("surrogate",)

#: Conditions that are no fresh feedback weights, in the order of columns.
_FIRST = ("none", "exact", "own", "feedback", "surrogate:twin", "surrogate:other_seed")


def condition_order(conditions: Iterable[str]) -> list[str]:
    """Returns attackers' gradients in the order of columns: none, the network's own ones, fresh weights of rules."""
    gradients = {name: parse_gradient(name) for name in conditions}
    rules = rule_order({gradient.rule for gradient in gradients.values()})

    def place(name: str) -> tuple[int, int, int]:
        first = _FIRST.index(name) if name in _FIRST else len(_FIRST)
        return first, rules.index(gradients[name].rule), gradients[name].draw

    return sorted(gradients, key=place)


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of matrices by dataset, backbone, the papers' order of rules, and the order of columns."""
    places = {name: place for place, name in enumerate(condition_order(rows.condition))}
    rows = rows.sort_values("condition", key=lambda names: names.map(places), kind="stable")
    return by_rule_order(rows).sort_values(["dataset", "backbone"], kind="stable", ignore_index=True)


_HEADINGS = {
    "none": "No attack",
    "exact": "Exact gradient",
    "own": "Its own gradient",
    "feedback": "Its own feedback weights",
}


def heading(condition: str, backbone: str = "") -> str:
    """Returns what a table calls a condition of a network."""
    if condition in _HEADINGS:
        return _HEADINGS[condition]
    return _capital(display_of(condition, backbone))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def fresh_rule(condition: str) -> str:
    """Returns the title of the rule of fresh feedback weights."""
    return rule_title(parse_gradient(condition).rule)


def shown(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns a row per network and a column per condition, as texts in percent with the interval.

    Dataset and backbone are columns only where there are several.
    """
    conditions = condition_order(rows.condition)
    lines = []
    for (dataset, backbone, rule), cells in rows.groupby(["dataset", "backbone", "rule"], sort=False):
        by_condition = {row.condition: row for row in cells.itertuples()}
        texts = {heading(name, str(backbone)): _text(by_condition.get(name)) for name in conditions}
        places = {"Dataset": display(str(dataset)), "Backbone": display(str(backbone))}
        what = "Model" if backbone == GIVEN_MODELS else "Trained with"
        lines.append(places | {what: display(str(rule))} | texts)
    frame = pd.DataFrame(lines)
    return frame.drop(columns=[name for name in ("Dataset", "Backbone") if frame[name].nunique() == 1])


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    value, low, high = (100 * float(getattr(cell, name)) for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def attack_words(rows: pd.DataFrame) -> str:
    """Returns the attack and its size, such as "Attack: PGD, epsilon 0.1 (L-inf)."."""
    first = rows.iloc[0]
    return f"Attack: {display(str(first.attack))}, epsilon {first.epsilon:g} ({display(str(first.norm))})."


def sample_words(rows: pd.DataFrame) -> str:
    """Returns where the numbers were measured, on how much, and what chance is."""
    places = dict.fromkeys(
        f"{display(backbone)} on {display(dataset)}"
        for dataset, backbone in zip(rows.dataset, rows.backbone, strict=True)
    )
    chances = sorted({round(100 * chance, 1) for chance in rows.chance if not math.isnan(chance)})
    chance = f" Chance is {' to '.join(f'{value:g}%' for value in {chances[0]: 0, chances[-1]: 0})}." if chances else ""
    draws = int(rows.n_draws.max())
    averaged = f" Fresh feedback weights: means of up to {draws} draws." if draws > 1 else ""
    n = f"n = {span(rows.n_images)} images x {span(rows.n_seeds)} seeds"
    return f"{_capital('; '.join(places))}, {n}, the same for all columns.{chance}{averaged}"


def figure_note(rows: pd.DataFrame) -> str:
    """Returns what the numbers of a heat map are, and what they rest on."""
    return f"Accuracy in percent. {attack_words(rows)} {sample_words(rows)}"


def note(rows: pd.DataFrame) -> str:
    """Returns what the numbers of a table rest on."""
    return f"{attack_words(rows)} {sample_words(rows)} Intervals: {rows.interval.iloc[0]}."
