"""Test accuracy of SAL against the width of its descending stream, a line for each activation of that stream (the SAL
paper's Figure 2). "ReLU's derivative" passes the error of a unit where V h > 0. Bands are 95% intervals over images and
seeds. The ascending stream keeps its width."""

from itertools import chain, cycle, repeat

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.collection import chance_of
from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.sal_figure2 import Settings
from creditflow.reporting.names import display
from creditflow.reporting.style import BAND, LINES, End, chance_line, label_ends, note
from creditflow.reporting.table import footnote


def draw(summary: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns a panel per dataset."""
    variants = [variant for line in settings.lines.values() for variant in line.values()]
    rows = summary[(summary.attack == "clean") & (summary.rule == settings.rule)]
    shown = rows[
        rows.backbone.isin(variants) & rows.dataset.isin([settings.dataset] if settings.dataset else set(rows.dataset))
    ]
    missing = sorted(set(variants) - set(shown.backbone))
    if missing:
        raise UserError(
            f"sal_figure2: no record of variant {missing[0]!r}; found: {', '.join(sorted(set(rows.backbone)))}"
        )
    datasets = sorted(set(shown.dataset))
    canvas = Canvas(figsize=(1.2 + 5.2 * len(datasets), 3.6), layout="constrained")
    for axes, dataset in zip(canvas.subplots(1, len(datasets), squeeze=False)[0], datasets, strict=True):
        _panel(axes, shown[shown.dataset == dataset], settings.lines)
        axes.set_title(display(dataset), fontsize=9)
    note(canvas, f"Rule: {display(settings.rule)}. {footnote(shown)}")
    return canvas


def _panel(axes: Axes, rows: pd.DataFrame, lines: dict[str, dict[int, str]]) -> None:
    ends = []
    # Each line is thinner than the one below it, so that lines that coincide are all seen.
    for (label, variants), (color, dash, marker), thickness in zip(
        lines.items(), cycle(LINES), chain((3.2, 2.4, 1.8, 1.3, 1.0), repeat(0.8)), strict=False
    ):
        widths = sorted(variants)
        points = pd.concat([_row(rows, variants[width]) for width in widths])
        axes.plot(
            widths,
            100 * points.value,
            color=color,
            linestyle=dash,
            linewidth=thickness,
            marker=marker,
            markersize=2 * thickness + 1,
            label=display(label),
        )
        axes.fill_between(widths, 100 * points.low, 100 * points.high, color=color, alpha=BAND, linewidth=0)
        ends.append(End(widths[-1], 100 * float(points.value.iloc[-1]), display(label), color))
    ticks = sorted({width for variants in lines.values() for width in variants})
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.set_xticks([], minor=True)
    axes.set_xlabel("descending units per hidden layer (logarithmic scale)")
    axes.set_ylabel("test accuracy (%)")
    chance_line(axes, chance_of(rows))
    label_ends(axes, ends, 2.8)


def _row(rows: pd.DataFrame, variant: str) -> pd.DataFrame:
    row = rows[rows.backbone == variant]
    if len(row) != 1:
        raise UserError(
            f"sal_figure2: no record of variant {variant!r}; found: {', '.join(sorted(set(rows.backbone)))}"
        )
    return row


FIGURE = Figure(draw=draw)
