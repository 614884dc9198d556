"""The form of the sign-symmetry paper's Figures 2 to 6: what is left of a metric against epsilon for one backbone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings._curves import CurvesSettings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style, without_matched
from creditflow.reporting.table import footnote, hash_attacks, white_box

_TITLES = {
    "exact": "attacker uses the exact gradient",
    "own": "attacker uses the model's own backward pass",
    "feedback": "attacker uses the rule's own feedback path",
    "none": "attacker uses no gradient",
}
_SHORT_TITLES = {
    "exact": "exact gradient",
    "own": "own backward pass",
    "feedback": "own feedback path",
    "none": "no gradient",
}


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
            _panel(axes, rows[chosen], epsilons, rules)
        line[0].set_ylabel(f"{display(attack)}\n{axis}")
    for (dataset, gradient), top, bottom in zip(columns, grid[0], grid[-1], strict=True):
        top.set_title(
            _TITLES[gradient] if one_dataset else f"{display(dataset)}\n{_SHORT_TITLES[gradient]}", fontsize=10
        )
        bottom.set_xlabel(
            "epsilon (L-infinity, pixels in [0, 1]; not to scale)"
            if one_dataset
            else "epsilon (L-infinity; not to scale)"
        )
        if not one_dataset:
            bottom.tick_params("x", labelrotation=45)
    canvas.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rules), frameon=False)
    canvas.supxlabel(f"{_place(rows, datasets)}. {footnote(rows).replace('intervals', 'bands')}", fontsize=7)
    return canvas


def _place(rows: pd.DataFrame, datasets: Sequence[str]) -> str:
    return ", ".join(display(name) for name in (rows.backbone.iloc[0], *datasets))


def _panel(axes: Axes, rows: pd.DataFrame, epsilons: list[float], rules: list[str]) -> None:
    # Evenly spaced: on a linear axis half of the epsilons would lie on top of each other.
    for rule in rules:
        curve = rows[rows.rule == rule].sort_values("epsilon")
        positions = [epsilons.index(epsilon) for epsilon in curve.epsilon]
        style = rule_style(rule, rules)
        axes.plot(
            positions,
            100 * curve.value,
            label=display(rule),
            color=style["color"],
            marker=style["marker"],
            markersize=4,
            linewidth=1.3,
        )
        axes.fill_between(positions, 100 * curve.low, 100 * curve.high, color=style["color"], alpha=0.15, linewidth=0)
    axes.set_xticks(range(len(epsilons)), [f"{epsilon:g}" for epsilon in epsilons])
    axes.set_ylim(-3, 103)
