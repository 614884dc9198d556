"""Accuracy on natural (full lines) and adversarial (dashed) test images after each epoch of training (the PEPITA
paper's Figure 2B, which doubles the epochs to see whether anything still changes). Bands from the least to the greatest
of the seeds."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.pepita_figure2b import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style

_LINES = {"test_accuracy": "-", "test_adversarial_accuracy": "--"}


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns one panel: a full and a dashed line for each rule."""
    rows = records[records.metric.isin(_LINES) & (records.attack == "clean") & records.epoch.notna()]
    if rows.empty:
        raise UserError(
            "pepita_figure2b: no curves; set `curve_images` in the population's settings and run the experiment again"
        )
    rows = only(rows, "dataset", settings.dataset, "pepita_figure2b", "curves")
    rows = only(rows, "backbone", settings.variant, "pepita_figure2b", "curves", setting="variant")
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(5.6, 3.8), layout="constrained")
    axes = canvas.subplots()
    for rule in rules:
        color = rule_style(rule, rules)["color"]
        for metric, line in _LINES.items():
            curve = (
                rows[(rows.rule == rule) & (rows.metric == metric)].groupby("epoch").value.agg(["mean", "min", "max"])
            )
            label = f"{display(rule)}, {'natural' if metric == 'test_accuracy' else 'adversarial'}"
            axes.plot(curve.index, 100 * curve["mean"], line, color=color, label=label, linewidth=1.3)
            axes.fill_between(curve.index, 100 * curve["min"], 100 * curve["max"], color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(-3, 103)
    axes.legend(fontsize=8, loc="best")
    place = f"{display(rows.backbone.iloc[0])}, {display(rows.dataset.iloc[0])}"
    canvas.supxlabel(f"{place}. n = {rows.n.max()} images x {rows.seed.nunique()} seeds", fontsize=7)
    return canvas


FIGURE = Figure(draw=draw, source="records")
