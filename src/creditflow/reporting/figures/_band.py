"""A line over a quantity such as the epoch: means over seeds, and a band from the least to the greatest."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_style
from creditflow.reporting.style import BAND, WIDTH, End, rule_line


def draw_band(axes: Axes, places: Sequence[int], spread: pd.DataFrame, rule: str, rules: list[str]) -> None:
    """Draws a rule's line with its band.

    Args:
        axes: where they are drawn.
        places: the places on the x axis.
        spread: the columns mean, min and max, with a row for each place.
        rule: id of the rule.
        rules: ids of all rules of the figure, on which the styles of rules without one of their own depend.
    """
    style = rule_style(rule, rules)
    axes.plot(places, spread["mean"], **rule_line(style, display(rule)))
    axes.fill_between(places, spread["min"], spread["max"], color=style["color"], alpha=BAND, linewidth=0)


def draw_by_epoch(
    axes: Axes, rows: pd.DataFrame, label: str, color: str, *, factor: float = 1, smooth: int = 1, **line: Any
) -> End:
    """Draws the mean over seeds by epoch, with its band, and returns where the line ends.

    Args:
        axes: where they are drawn.
        rows: rows of `records.parquet` with one metric.
        label: what the line is.
        color: its colour.
        factor: what values are multiplied by, such as 100 for percent.
        smooth: number of epochs, odd, over whose middle one the mean and the bounds are averaged; 1 for none.
        line: more arguments of matplotlib's line.
    """
    curve = factor * rows.groupby("epoch").value.agg(["mean", "min", "max"])
    curve = curve.rolling(smooth, center=True, min_periods=1).mean() if smooth > 1 else curve
    epochs = curve.index.astype(int)
    axes.plot(epochs, curve["mean"], color=color, label=label, **({"linewidth": WIDTH} | line))
    axes.fill_between(epochs, curve["min"], curve["max"], color=color, alpha=BAND, linewidth=0)
    return End(float(epochs[-1]), float(curve["mean"].iloc[-1]), label, color)
