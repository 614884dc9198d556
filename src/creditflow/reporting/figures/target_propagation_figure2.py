"""Share of a hidden layer's update that has no effect on the output, to first order, on a toy regression with two
outputs (the target-propagation paper's Figure 2). It is 0 for exact Gauss-Newton targets. Bars are means over steps and
seeds, lines are a standard deviation over steps, and points are the seeds."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.core.settings import NoSettings
from creditflow.reporting.figure import Figure
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import BLACK, note


def draw(records: pd.DataFrame, settings: NoSettings) -> Canvas:
    """Returns one panel."""
    means = records[records.metric == "nullspace_ratio"]
    if means.empty:
        raise UserError("target_propagation_figure2: no record of null spaces; give the experiment `nullspace`")
    rules = rule_order(set(means.rule))
    deviations = records[records.metric == "nullspace_ratio_deviation"].groupby("rule").value.mean()
    canvas = Canvas(figsize=(4.6, 3.4), layout="constrained")
    axes = canvas.subplots()
    for place, rule in enumerate(rules):
        of_seeds = means[means.rule == rule].value
        color = rule_style(rule, rules)["color"]
        axes.bar(place, of_seeds.mean(), yerr=deviations[rule], color=color, alpha=0.75, width=0.65, capsize=3)
        axes.scatter(np.full(len(of_seeds), place), of_seeds, s=8, color=BLACK, zorder=3)
    axes.set_xticks(range(len(rules)), [display(rule) for rule in rules], rotation=20)
    axes.set_ylabel("share of the update without effect")
    axes.set_ylim(bottom=0)
    sample = f"{means.n.max()} steps (lines: their standard deviation) x {means.seed.nunique()} seeds (points)"
    note(canvas, f"{display(means.backbone.iloc[0])} tanh network, hidden layer 2; {sample}.")
    return canvas


FIGURE = Figure(draw=draw, source="records")
