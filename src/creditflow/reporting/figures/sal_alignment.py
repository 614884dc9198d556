"""How SAL assembles itself, by epoch: the angle between each rule's update and the gradient, all layers below the
output; the cosine of V and Vb^T, which Lemma 1 drives to 1, beside the effective rank of H = Vb Vb^T; and H's mean and
largest eigenvalue, by which it multiplies the learning rate. Bands from the least to the greatest of the seeds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.sal_alignment import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns three panels."""
    rows = records[records.epoch.notna()]
    rows = only(rows, "dataset", settings.dataset, "sal_alignment", "training")
    rows = only(rows, "backbone", settings.variant, "sal_alignment", "training", setting="variant")
    rules = rule_order(set(rows[rows.metric == "update_angle"].rule))
    if settings.rule not in rules:
        raise UserError(
            f"sal_alignment: no update angle of {settings.rule!r}; set `angle_images` in the population's settings"
        )
    canvas = Canvas(figsize=(9.6, 3.2), layout="constrained")
    angles, circuit, spectrum = canvas.subplots(1, 3)
    for rule in rules:
        _line(angles, rows[rows.rule == rule], "update_angle", display(rule), rule_style(rule, rules)["color"])
    angles.set(ylabel="angle to the gradient (degrees)", ylim=(-3, 95))
    angles.axhline(90, color="#999999", linewidth=0.8, linestyle=":")
    ranks = _circuit(circuit, rows[rows.rule == settings.rule])
    _spectrum(spectrum, rows[rows.rule == settings.rule])
    for axes in (angles, spectrum):
        axes.legend(fontsize=7)
    lines = [line for axes in (circuit, ranks) for line in axes.get_lines()]
    circuit.legend(lines, [str(line.get_label()) for line in lines], fontsize=7, loc="center")
    for axes in (angles, circuit, spectrum):
        axes.set_xlabel("epoch")
    n = int(rows[rows.metric == "update_angle"].n.max())
    where = f"{display(rows.dataset.iloc[0])}, {display(rows.backbone.iloc[0])}"
    canvas.supxlabel(
        f"{where}, angles on {n} training images, {rows.seed.nunique()} seeds; means over hidden layers", fontsize=7
    )
    return canvas


def _circuit(axes: Axes, rows: pd.DataFrame) -> Axes:
    """Draws the cosine of V and Vb^T, and the effective rank of H on axes of its own, which it returns."""
    _line(axes, rows, "v_cosine", r"cosine of $V$ and $\bar{V}^T$", "#0072B2")
    axes.set(ylabel="cosine", ylim=(0, 1.02))
    ranks = axes.twinx()
    _line(ranks, rows, "effective_rank", "effective rank of H", "#D55E00")
    ranks.set_ylabel("effective rank")
    ranks.set_ylim(bottom=0)
    ranks.grid(visible=False)
    return ranks


def _spectrum(axes: Axes, rows: pd.DataFrame) -> None:
    _line(axes, rows, "h_largest_eigenvalue", "largest", "#D55E00")
    _line(axes, rows, "h_mean_eigenvalue", "mean", "#0072B2")
    axes.set(ylabel="eigenvalue of H", yscale="log")


def _line(axes: Axes, rows: pd.DataFrame, metric: str, label: str, color: str) -> None:
    curve = rows[rows.metric == metric].groupby("epoch").value.agg(["mean", "min", "max"])
    axes.plot(curve.index, curve["mean"], color=color, label=label)
    axes.fill_between(curve.index.astype(int), curve["min"], curve["max"], color=color, alpha=0.15, linewidth=0)


FIGURE = Figure(draw=draw, source="records")
