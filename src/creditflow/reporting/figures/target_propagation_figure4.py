"""Angle between each rule's update of a hidden layer and the gradient (left), and what Gauss-Newton targets teach
(right), by epoch (the target-propagation paper's Figure 4). The damping of the Gauss-Newton targets is chosen for each
rule by the smallest mean angle, as the paper chooses it; it stands in brackets. Lines are means over seeds, and bands
go from the least to the greatest. The note below says over how many epochs both are smoothed."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_by_epoch
from creditflow.reporting.figures.settings.target_propagation_figure4 import Settings
from creditflow.reporting.names import display, span
from creditflow.reporting.recorded_angles import best_damping, recorded_angles
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import label_ends, note, reference_line


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
    canvas = Canvas(figsize=(10.4, 4.2), layout="constrained")
    smooth = 2 * (int(rows.epoch.max()) // 20) + 1
    rules = rule_order(set(rows.rule))
    to_gnt = {rule: rows[(rows.rule == rule) & (rows.damping == _damping(rows, rule))] for rule in rules}
    to_bp = {rule: rows[(rows.rule == rule) & (rows.to == "bp")] for rule in rules if rule != "bp"}
    dampings = {rule: f"{display(rule)} ({_damping(rows, rule)})" for rule in rules}
    panels = canvas.subplots(1, 2, sharey=True)
    panels[0].set(ylabel="angle of the update (degrees)", ylim=(0, 105))
    titles = ("to the gradient", "to Gauss-Newton targets (damping in brackets)")
    for axes, curves, title in zip(panels, (to_bp, to_gnt), titles, strict=True):
        names = {rule: display(rule) for rule in rules} if curves is to_bp else dampings
        ends = [
            draw_by_epoch(axes, curve, names[rule], rule_style(rule, rules)["color"], smooth=smooth)
            for rule, curve in curves.items()
        ]
        axes.set(xlabel="epoch", title=title)
        reference_line(axes, 90, "90 degrees: no relation")
        label_ends(axes, ends, 2.6)
    note(canvas, *_below(rows, layer, smooth))
    return canvas


def _damping(rows: pd.DataFrame, rule: str) -> str:
    return best_damping(rows[rows.rule == rule])


def _below(rows: pd.DataFrame, layer: int, smooth: int) -> list[str]:
    """Returns the sentences below the panels: what is shown, on how much, and how it is smoothed."""
    where = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}, hidden layer {layer}"
    seeds = span(rows.groupby("rule").seed.nunique())
    smoothed = f"Each point is the mean of the {smooth} epochs around it." if smooth > 1 else "Nothing is smoothed."
    return [f"{where}; a batch of {rows.n.max()} training images, {seeds} seeds.", smoothed]


FIGURE = Figure(draw=draw, source="records")
