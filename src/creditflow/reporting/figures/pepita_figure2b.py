"""Accuracy on test images after each epoch of training. Full lines are for natural images. Dashed lines are for the
same images under the PGD that the population's settings name as its adversary. The figure has the form of the PEPITA
paper's Figure 2B, whose networks learn from adversarial images. Where the two lines of a rule lie on each other, this
attack fools no network of the rule. Other attacks may still fool them: see the audit.
"""

import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from creditflow.core.errors import UserError
from creditflow.reporting.collection import chance_of
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_by_epoch
from creditflow.reporting.figures.settings.pepita_figure2b import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import chance_line, label_ends, note

#: The metrics, each with its dash and its words.
_LINES = {"test_accuracy": ("-", "natural"), "test_adversarial_accuracy": ("--", "adversarial")}


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
    canvas = Canvas(figsize=(6.4, 3.8), layout="constrained")
    axes = canvas.subplots()
    ends = []
    for rule in rules:
        color = rule_style(rule, rules)["color"]
        for metric, (line, word) in _LINES.items():
            curve = rows[(rows.rule == rule) & (rows.metric == metric)]
            label = f"{display(rule)}, {word}"
            ends.append(draw_by_epoch(axes, curve, label, color, factor=100, linestyle=line))
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy on test images (%)")
    axes.set_ylim(-3, 103)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    chance_line(axes, chance_of(rows))
    label_ends(axes, ends, 3.0)
    n_seeds = rows.seed.nunique()
    spread = f"Means of {n_seeds} seeds; bands go from the least to the greatest." if n_seeds > 1 else "One seed."
    place = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}, {rows.n.max()} test images."
    note(canvas, place, spread)
    return canvas


FIGURE = Figure(draw=draw, source="records")
