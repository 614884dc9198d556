"""The form of the sign-symmetry paper's Figures 2 to 6: what is left of a metric against epsilon for one backbone."""

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.reporting.collection import chance_of
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings._curves import CurvesSettings
from creditflow.reporting.names import display, rules_title
from creditflow.reporting.rules import rule_order, rule_style, without_matched
from creditflow.reporting.style import (
    BAND,
    GRADIENT_TITLES,
    GRADIENT_WORDS,
    chance_line,
    epsilon_axis,
    legend_above,
    note,
    rule_line,
)
from creditflow.reporting.table import footnote, hash_attacks, white_box

#: Letters of a line above a narrow panel.
_LETTERS = 27


@dataclass(frozen=True)
class Curves:
    """What such a figure shows.

    Attributes:
        select: summary -> the rows that it shows.
        what: what these rows are, for messages.
        axis: the label of the vertical axis.
    """

    select: Callable[[pd.DataFrame], pd.DataFrame]
    what: str
    axis: str


ACCURACY = Curves(white_box, "FGSM or PGD", "robust accuracy (%)")
PRECISION = Curves(hash_attacks, "attacks on retrieval", "mAP (%)")


def white_box_figure(name: str, backbone: str, *, or_the_only_one: bool = False, curves: Curves = ACCURACY) -> Figure:
    """Returns the figure `name` of one backbone.

    Its rows are attacks; its columns are attackers' gradients, for each dataset. With `or_the_only_one`, the figure
    shows the only backbone of an experiment that does not have this one.
    """

    def draw(summary: pd.DataFrame, settings: CurvesSettings) -> Canvas:
        rows = without_matched(curves.select(summary))
        if settings.dataset is not None or rows.empty:
            rows = only(rows, "dataset", settings.dataset, name, curves.what)
        usual = None if or_the_only_one and backbone not in set(rows.backbone) else backbone
        return _draw(only(rows, "backbone", settings.backbone or usual, name, curves.what), curves.axis)

    return Figure(draw=draw)


def _draw(rows: pd.DataFrame, axis: str) -> Canvas:
    epsilons = sorted(set(rows.epsilon))
    attacks, rules = sorted(set(rows.attack)), rule_order(set(rows.rule))
    columns = sorted(set(zip(rows.dataset, rows.gradient, strict=True)))
    datasets = list(dict.fromkeys(dataset for dataset, _ in columns))
    one_dataset = len(datasets) == 1
    canvas = Canvas(
        figsize=(0.8 + (3.6 if one_dataset else 2.5) * len(columns), 0.9 + 2.5 * len(attacks)), layout="constrained"
    )
    grid = canvas.subplots(len(attacks), len(columns), sharex=True, sharey=True, squeeze=False)
    for attack, line in zip(attacks, grid, strict=True):
        for (dataset, gradient), axes in zip(columns, line, strict=True):
            chosen = (rows.attack == attack) & (rows.dataset == dataset) & (rows.gradient == gradient)
            _panel(axes, rows[chosen], rules)
        line[0].set_ylabel(f"{display(attack)}\n{axis}")
    for (dataset, gradient), top, bottom in zip(columns, grid[0], grid[-1], strict=True):
        title = f"{fill(display(dataset), _LETTERS)}\n{GRADIENT_WORDS[gradient]}"
        top.set_title(GRADIENT_TITLES[gradient] if one_dataset else title)
        epsilon_axis(bottom, epsilons, short=not one_dataset)
    legend_above(canvas, [grid[0][0]], len(rules))
    networks = f"{rules_title(rows.backbone.iloc[0])}s: {', '.join(map(display, rules))}"
    note(
        canvas,
        f"{display(rows.backbone.iloc[0])} on {'; '.join(map(display, datasets))}. {networks}.",
        f"Points are means over images and seeds; bands are their intervals. {footnote(rows)}",
    )
    return canvas


def _panel(axes: Axes, rows: pd.DataFrame, rules: list[str]) -> None:
    for rule in rules:
        curve = rows[rows.rule == rule].sort_values("epsilon")
        style = rule_style(rule, rules)
        axes.plot(curve.epsilon, 100 * curve.value, **rule_line(style, display(rule)))
        bounds = (100 * curve.low, 100 * curve.high)
        axes.fill_between(curve.epsilon, *bounds, color=style["color"], alpha=BAND, linewidth=0)
    axes.set_ylim(-3, 103)
    if set(rows.metric) == {"robust_accuracy"}:
        chance_line(axes, chance_of(rows))
