"""Robust accuracy against epsilon under FGSM (top) and PGD (bottom). Left, the attacker's gradient is exact: it runs
through the forward weights. Right, it runs through the rule's own feedback weights, as it does where a library computes
it through the layers' own backward pass. For BP the two are the same. The models in both columns are the same."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.errors import UserError
from creditflow.reporting.figure import Figure, rule_style
from creditflow.reporting.names import display, rule_order
from creditflow.reporting.table import footnote, white_box

_TITLES = {"exact": "attacker's gradient: exact", "feedback": "attacker's gradient: feedback weights"}


@dataclass(frozen=True)
class Settings:
    """dataset, backbone: which ones to show; may be left out where there is only one."""

    dataset: str | None = None
    backbone: str | None = None


def draw(summary: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure; rows are attacks, columns attacker gradients."""
    rows = _only(_only(white_box(summary), "dataset", settings.dataset), "backbone", settings.backbone)
    epsilons = sorted(set(rows.epsilon))
    attacks, gradients, rules = sorted(set(rows.attack)), sorted(set(rows.gradient)), rule_order(set(rows.rule))
    canvas = Canvas(figsize=(0.8 + 3.6 * len(gradients), 0.9 + 2.5 * len(attacks)), layout="constrained")
    grid = canvas.subplots(len(attacks), len(gradients), sharex=True, sharey=True, squeeze=False)
    for attack, line in zip(attacks, grid, strict=True):
        for gradient, axes in zip(gradients, line, strict=True):
            _panel(axes, rows[(rows.attack == attack) & (rows.gradient == gradient)], epsilons, rules)
        line[0].set_ylabel(f"{display(attack)}\nrobust accuracy (%)")
    for gradient, top, bottom in zip(gradients, grid[0], grid[-1], strict=True):
        top.set_title(_TITLES[gradient], fontsize=10)
        bottom.set_xlabel("epsilon (L-infinity, pixels in [0, 1])")
    canvas.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rules), frameon=False)
    name = f"{display(rows.backbone.iloc[0])}, {display(rows.dataset.iloc[0])}"
    canvas.supxlabel(f"{name}. {footnote(rows).replace('intervals', 'bands')}", fontsize=7)
    return canvas


def _panel(axes: Axes, rows: pd.DataFrame, epsilons: list[float], rules: list[str]) -> None:
    # Evenly spaced: on a linear axis half of the epsilons would lie on top of each other.
    for rule in rules:
        curve = rows[rows.rule == rule].sort_values("epsilon")
        positions = [epsilons.index(epsilon) for epsilon in curve.epsilon]
        style = rule_style(rule, rules)
        axes.plot(
            positions, 100 * curve.value, label=display(rule), color=style["color"], marker=style["marker"], markersize=4, linewidth=1.3
        )
        axes.fill_between(positions, 100 * curve.low, 100 * curve.high, color=style["color"], alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(epsilons)), [f"{epsilon:g}" for epsilon in epsilons])
    axes.set_ylim(-3, 103)


def _only(rows: pd.DataFrame, column: str, wanted: str | None) -> pd.DataFrame:
    found = sorted(set(rows[column]))
    if wanted is None and len(found) > 1:
        raise UserError(f"figure2: choose one {column} of {', '.join(found)} in the figure's settings")
    chosen = rows if wanted is None else rows[rows[column] == wanted]
    if chosen.empty:
        raise UserError(f"figure2: no record of FGSM or PGD for {column} {wanted or 'any'!r}; found: {', '.join(found) or 'none'}")
    return chosen


FIGURE = Figure(settings=Settings, draw=draw)
