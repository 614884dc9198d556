"""How precisely a rule's update reduces the error, and how much its feedback weights know of the weights: the
sign-symmetry paper's Figure 1, measured. The left panel shows the angle between the rule's update and the loss gradient
after each epoch, over all parameters below the head. At 90 degrees the two have nothing to do with each other. The
right panel shows the last epoch's angle against the cosine between feedback weights and weights. The cosine is 1 for
BP. Layers whose error comes by another way, as in DFA, count as 0.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_band
from creditflow.reporting.figures.settings.figure1 import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style, transported_bits, without_matched
from creditflow.reporting.style import GREY, apart, legend_above, note

_METRICS = ("update_angle", "feedback_cosine")

#: Degrees between two labels, so that they do not touch, and the highest place of one.
_LABEL_STEP, _LABEL_TOP = 6.5, 96.0

_BITS = "Bits: how many bits of each weight the feedback weights use, 32 for all of it, 1 for its sign."


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure: the angle over the epochs, and at the end, against the cosine."""
    rows = without_matched(records)
    rows = rows[rows.metric.isin(_METRICS) & (rows.attack == "clean") & rows.epoch.notna()]
    if set(rows.metric) != set(_METRICS):
        raise UserError(
            "figure1: no record of update angles and feedback cosines, which fine-tuned networks have;"
            " set `angle_images` in `finetune.settings` and run the experiment again"
        )
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        rows = only(rows, column, wanted, "figure1", "update angles")
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    left, right = canvas.subplots(1, 2, sharey=True, width_ratios=[1.1, 1])
    angles, cosines = ({rule: _spread(rows, rule, metric) for rule in rules} for metric in _METRICS)
    for rule in rules:
        draw_band(left, [int(epoch) for epoch in angles[rule].index], angles[rule], rule, rules)
    _points(right, *({rule: curves[rule].iloc[-1] for rule in rules} for curves in (cosines, angles)))
    _decorate(left, right)
    left.set_xlim(rows.epoch.min() - 0.5, rows.epoch.max() + 0.5)
    left.set_ylim(-4, max(100.0, rows.value.max() + 4))
    legend_above(canvas, [left], len(rules))
    n_seeds = rows.seed.nunique()
    spread = f"Means of {n_seeds} seeds, bands and bars from the least to the greatest" if n_seeds > 1 else "One seed"
    place = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}"
    note(canvas, f"{place}. {spread}. {_BITS}")
    return canvas


def _spread(rows: pd.DataFrame, rule: str, metric: str) -> pd.DataFrame:
    """Returns mean, min and max over seeds; epochs are the index."""
    return rows[(rows.rule == rule) & (rows.metric == metric)].groupby("epoch").value.agg(["mean", "min", "max"])


def _points(axes: Axes, cosines: "dict[str, pd.Series[float]]", angles: "dict[str, pd.Series[float]]") -> None:
    rules = list(angles)
    places = apart([last["mean"] for last in angles.values()], _LABEL_STEP, _LABEL_TOP)
    for rule, place in zip(rules, places, strict=True):
        (x, *x_bar), (y, *y_bar) = (_bar(last[rule]) for last in (cosines, angles))
        style = rule_style(rule, rules)
        axes.errorbar(
            [x],
            [y],
            xerr=[[part] for part in x_bar],
            yerr=[[part] for part in y_bar],
            color=style["color"],
            marker=style["marker"],
            markersize=6,
            capsize=2,
            linewidth=1,
            zorder=3,
        )
        axes.annotate(
            _label(rule),
            (x, y),
            xytext=(1.1, place),
            textcoords="data",
            va="center",
            fontsize=8,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": style["color"], "linewidth": 0.8, "shrinkA": 2, "shrinkB": 4},
        )


def _bar(last: "pd.Series[float]") -> tuple[float, float, float]:
    """Returns the mean, and how far the least and the greatest are from it; rounding must not make that negative."""
    mean = last["mean"]
    return mean, max(0.0, mean - last["min"]), max(0.0, last["max"] - mean)


def _label(rule: str) -> str:
    bits = transported_bits(rule)
    return display(rule) if bits is None else f"{display(rule)}, {bits} bit{'' if bits == 1 else 's'}"


def _decorate(left: Axes, right: Axes) -> None:
    for axes in (left, right):
        axes.axhline(90, color=GREY, linestyle="--", linewidth=0.8, zorder=0)
        axes.set_yticks(range(0, 91, 15))
    left.annotate(
        "90°: no relation", (0.99, 91.5), xycoords=("axes fraction", "data"), ha="right", fontsize=7, color=GREY
    )
    left.set_xlabel("epoch")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.set_ylabel("angle between update\nand loss gradient (degrees)")
    left.set_title("precision of the update during training", fontsize=10)
    right.set_xlabel("cosine between feedback weights and weights")
    right.set_title("at its end, against knowledge of the weights", fontsize=10)
    right.set_xlim(-0.08, 1.06)
    right.set_xticks([0, 0.25, 0.5, 0.75, 1])


FIGURE = Figure(draw=draw, source="records")
