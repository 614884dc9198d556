"""Accuracy on held-out images after each epoch, with only some of SAL's pathways plastic (the SAL paper's Figure 4).
"Linear" is a linear network trained with backpropagation. Bands from the least to the greatest of the seeds."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.sal_figure4 import Settings
from creditflow.reporting.names import display

_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#8B5A2B")


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns one panel, a line for each label."""
    rows = records[(records.metric == settings.metric) & records.epoch.notna()]
    rows = only(rows, "dataset", settings.dataset, "sal_figure4", settings.metric)
    canvas = Canvas(figsize=(6.4, 4), layout="constrained")
    axes = canvas.subplots()
    for index, (label, place) in enumerate(settings.lines.items()):
        variant, _, rule = place.partition(" ")
        chosen = rows[(rows.backbone == variant) & (rows.rule == rule)]
        if chosen.empty:
            raise UserError(f"sal_figure4: no record of {place!r}; name a variant and a rule, such as 'mlp_200 sal'")
        curve = chosen.groupby("epoch").value.agg(["mean", "min", "max"])
        color, line = _COLORS[index % len(_COLORS)], "-" if index < len(_COLORS) else "--"
        # Each line is thinner than the one below it, so that lines that coincide are all seen.
        thickness = max(4 * 0.75**index, 0.9)
        axes.plot(curve.index, 100 * curve["mean"], line, color=color, label=label, linewidth=thickness)
        axes.fill_between(curve.index, 100 * curve["min"], 100 * curve["max"], color=color, alpha=0.12, linewidth=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{settings.metric.replace('_', ' ')} (%)")
    axes.legend(fontsize=7, ncols=2)
    canvas.supxlabel(
        f"{display(rows.dataset.iloc[0])}, n = {rows.n.max()} images x {rows.seed.nunique()} seeds at most", fontsize=7
    )
    return canvas


FIGURE = Figure(draw=draw, source="records")
