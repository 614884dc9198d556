"""How SAL assembles itself, by epoch, in four panels. The first is the angle between each rule's update and the
gradient, over all layers below the output. The second is the cosine of V and Vb^T, which goes to 1 by Lemma 1 of the
SAL paper. The third is the effective rank of H = Vb Vb^T. The fourth is H's largest and mean eigenvalue, by which H
multiplies the learning rate. Lines are means over seeds, and bands go from the least to the greatest.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_by_epoch
from creditflow.reporting.figures.settings.sal_alignment import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import BLUE, VERMILION, label_ends, note, reference_line

#: Height of a panel in inches, about.
_HEIGHT = 2.0


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns four panels."""
    rows = records[records.epoch.notna()]
    rows = only(rows, "dataset", settings.dataset, "sal_alignment", "training")
    rows = only(rows, "backbone", settings.variant, "sal_alignment", "training", setting="variant")
    rules = rule_order(set(rows[rows.metric == "update_angle"].rule))
    if settings.rule not in rules:
        raise UserError(
            f"sal_alignment: no update angle of {settings.rule!r}; set `angle_images` in the population's settings"
        )
    canvas = Canvas(figsize=(8.6, 5.6), layout="constrained")
    (angles, cosine), (rank, spectrum) = canvas.subplots(2, 2)
    _angles(angles, rows[rows.metric == "update_angle"], rules)
    of_rule = rows[rows.rule == settings.rule]
    draw_by_epoch(cosine, of_rule[of_rule.metric == "v_cosine"], "", BLUE)
    cosine.set(ylabel=r"cosine of $V$ and $\bar{V}^T$", ylim=(0, 1.02))
    draw_by_epoch(rank, of_rule[of_rule.metric == "effective_rank"], "", BLUE)
    rank.set(ylabel="effective rank of H")
    rank.set_ylim(bottom=0)
    _spectrum(spectrum, of_rule)
    for axes in (angles, cosine, rank, spectrum):
        axes.set_xlabel("epoch")
    n = int(rows[rows.metric == "update_angle"].n.max())
    where = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}"
    note(
        canvas,
        f"{where}; all panels but the first: {display(settings.rule)}.",
        f"Angles on {n} training images, {rows.seed.nunique()} seeds; means over hidden layers.",
    )
    return canvas


def _angles(axes: Axes, rows: pd.DataFrame, rules: list[str]) -> None:
    ends = [
        draw_by_epoch(axes, rows[rows.rule == rule], display(rule), rule_style(rule, rules)["color"]) for rule in rules
    ]
    axes.set(ylabel="angle to the gradient (degrees)", ylim=(-3, 100))
    reference_line(axes, 90, "90 degrees: no relation")
    label_ends(axes, ends, _HEIGHT)


def _spectrum(axes: Axes, rows: pd.DataFrame) -> None:
    ends = [
        draw_by_epoch(axes, rows[rows.metric == f"h_{name}_eigenvalue"], name, color)
        for name, color in (("largest", VERMILION), ("mean", BLUE))
    ]
    axes.set(ylabel="eigenvalue of H", yscale="log")
    label_ends(axes, ends, _HEIGHT)


FIGURE = Figure(draw=draw, source="records")
