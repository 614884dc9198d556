"""A rule's line over a quantity such as the epoch: means over seeds, and a band from the least to the greatest."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_style


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
    axes.plot(
        places,
        spread["mean"],
        label=display(rule),
        color=style["color"],
        marker=style["marker"],
        markersize=4,
        linewidth=1.3,
    )
    axes.fill_between(places, spread["min"], spread["max"], color=style["color"], alpha=0.15, linewidth=0)
