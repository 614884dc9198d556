"""How well codes retrieve, before any attack. Left, precision against recall of all items within a Hamming radius that
grows from 0 to the length of the codes; a query that finds nothing has precision 0. Right, precision among the first
items of the ranking. Means over queries and seeds."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.precision_recall import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style

_METRICS = ("precision_at", "radius_precision", "radius_recall")


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure."""
    rows = records[records.metric.isin(_METRICS) & (records.attack == "clean")]
    if rows.empty:
        raise UserError("precision_recall: no record of retrieval; the experiment needs a section `retrieval`")
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        rows = only(rows, column, wanted, "precision_recall", "retrieval")
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    left, right = canvas.subplots(1, 2)
    for rule in rules:
        means = rows[rows.rule == rule].groupby(["metric", "at"]).value.mean()
        style = {"label": display(rule), "linewidth": 1.3, "markersize": 4, **rule_style(rule, rules)}
        left.plot(100 * means["radius_recall"], 100 * means["radius_precision"], **style)
        right.plot(list(map(int, means["precision_at"].index)), 100 * means["precision_at"], **style)
    left.set_xlabel("recall (%)")
    left.set_ylabel("precision (%)")
    left.set_title("within a Hamming radius", fontsize=10)
    right.set_xscale("log")
    right.set_xlabel("number of items retrieved")
    right.set_title("among the first items", fontsize=10)
    for axes in (left, right):
        axes.set_ylim(-3, 103)
    canvas.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(rules), frameon=False)
    n = f"{rows.n.max()} queries x {rows.seed.nunique()} seeds"
    canvas.supxlabel(f"{display(rows.backbone.iloc[0])}, {display(rows.dataset.iloc[0])}. Means of {n}.", fontsize=7)
    return canvas


FIGURE = Figure(draw=draw, source="records")
