"""How well codes retrieve, before any attack. The left panel shows precision against recall of all items within a
Hamming radius that grows from 0 to the length of the codes. A query that finds nothing has precision 0. The middle
panel shows the upper part of the same curves. The right panel shows precision among the first items of the ranking.
Lines are means over queries and seeds, and bands go from the least to the greatest seed. The scales of the middle and
right panels do not begin at 0."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_band
from creditflow.reporting.figures.settings.precision_recall import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import BAND, legend_above, note, rule_line

#: The middle panel begins at this share of the highest precision.
_PART = 0.9

_METRICS = ("precision_at", "radius_precision", "radius_recall")


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure."""
    rows = records[records.metric.isin(_METRICS) & (records.attack == "clean")]
    if rows.empty:
        raise UserError("precision_recall: no record of retrieval; the experiment needs a section `retrieval`")
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        rows = only(rows, column, wanted, "precision_recall", "retrieval")
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(11, 3.8), layout="constrained")
    whole, upper, first = canvas.subplots(1, 3)
    for rule in rules:
        for axes in (whole, upper):
            _within_radius(axes, rows[rows.rule == rule], rule, rules)
        _among_first(first, rows[rows.rule == rule], rule, rules)
    highest = max(float(line.get_ydata().max()) for line in upper.lines)
    upper.set_ylim(_PART * highest, highest + 0.05 * (1 - _PART) * highest)
    whole.set_ylim(-3, 103)
    for axes, title in ((whole, "within a Hamming radius"), (upper, "the same, upper part"), (first, "first items")):
        axes.set_title(title)
        axes.set_xlabel("number of items retrieved" if axes is first else "recall (%)")
        axes.set_ylabel("precision (%)")
    first.set_xscale("log")
    first.xaxis.set_major_formatter("{x:g}")
    legend_above(canvas, [whole], len(rules))
    place = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}."
    note(canvas, place, f"n = {rows.n.max()} queries x {rows.seed.nunique()} seeds.")
    return canvas


def _within_radius(axes: Axes, rows: pd.DataFrame, rule: str, rules: list[str]) -> None:
    precision, recall = (_spread(rows, f"radius_{name}") for name in ("precision", "recall"))
    style = rule_style(rule, rules)
    axes.plot(recall["mean"], precision["mean"], **rule_line(style, display(rule)))
    axes.fill_between(recall["mean"], precision["min"], precision["max"], color=style["color"], alpha=BAND, linewidth=0)


def _among_first(axes: Axes, rows: pd.DataFrame, rule: str, rules: list[str]) -> None:
    spread = _spread(rows, "precision_at")
    draw_band(axes, [int(rank) for rank in spread.index], spread, rule, rules)


def _spread(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Returns mean, min and max over seeds in percent; ranks or radii are the index."""
    return 100 * rows[rows.metric == metric].groupby("at").value.agg(["mean", "min", "max"])


FIGURE = Figure(draw=draw, source="records")
