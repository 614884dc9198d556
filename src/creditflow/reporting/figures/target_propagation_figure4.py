"""Angle between each rule's update of a hidden layer and the gradient (left), and what Gauss-Newton targets teach
(right), by epoch (the target-propagation paper's Figure 4). The damping of the Gauss-Newton targets is chosen for each
rule by the smallest mean angle, as the paper chooses it; the legend has it. Bands from the least to the greatest of the
seeds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.target_propagation_figure4 import Settings
from creditflow.reporting.names import display, span
from creditflow.reporting.recorded_angles import best_damping, recorded_angles
from creditflow.reporting.rules import rule_order, rule_style


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns two panels."""
    rows = only(recorded_angles(records), "dataset", settings.dataset, "target_propagation_figure4", "layers' angles")
    rows = only(rows, "backbone", settings.variant, "target_propagation_figure4", "layers' angles", setting="variant")
    layer = settings.layer or int(rows.layer.max())
    rows = rows[rows.layer == layer]
    if rows.empty:
        raise UserError(
            f"target_propagation_figure4: no angles of layer {layer}; choose a hidden layer in the figure's settings"
        )
    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    to_bp, to_gnt = canvas.subplots(1, 2, sharey=True)
    rules = rule_order(set(rows.rule))
    for rule in rules:
        of_rule = rows[rows.rule == rule]
        if rule != "bp":
            _line(to_bp, of_rule[of_rule.to == "bp"], rule, rules, display(rule))
        damping = best_damping(of_rule)
        _line(to_gnt, of_rule[of_rule.damping == damping], rule, rules, f"{display(rule)}, damping {damping}")
    for axes, reference in ((to_bp, "the gradient"), (to_gnt, "Gauss-Newton targets")):
        axes.set(xlabel="epoch", title=f"to {reference}")
        axes.axhline(90, color="#999999", linewidth=0.8, linestyle=":")
        axes.legend(fontsize=6, ncols=2)
    to_bp.set(ylabel="angle of the update (degrees)", ylim=(0, 105))
    where = f"{display(rows.dataset.iloc[0])}, {display(rows.backbone.iloc[0])}, hidden layer {layer}"
    seeds = span(rows.groupby("rule").seed.nunique())
    canvas.supxlabel(f"{where}; a batch of {rows.n.max()} training images, {seeds} seeds", fontsize=7)
    return canvas


def _line(axes: Axes, rows: pd.DataFrame, rule: str, rules: list[str], label: str) -> None:
    curve = rows.groupby("epoch").value.agg(["mean", "min", "max"])
    color = rule_style(rule, rules)["color"]
    axes.plot(curve.index, curve["mean"], color=color, label=label, linewidth=1.2)
    axes.fill_between(curve.index.astype(int), curve["min"], curve["max"], color=color, alpha=0.12, linewidth=0)


FIGURE = Figure(draw=draw, source="records")
