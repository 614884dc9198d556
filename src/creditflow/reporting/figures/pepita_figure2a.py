"""Accuracy on natural images against accuracy under attack, a point for each way to train a network (the PEPITA paper's Figure 2A).
Right of the line x = y nothing is lost to the attack. The same networks on the left, under PGD on the squared error of probabilities,
which they were trained with, and on the right in the worst case over the attacks that the experiment has at this epsilon."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.errors import UserError
from creditflow.reporting.figure import Figure, only, rule_style
from creditflow.reporting.names import display, rule_order

_PANELS = {"claim": "PGD on the squared error", "worst": "worst case"}


@dataclass(frozen=True)
class Settings:
    """dataset, epsilon: which ones to show; may be left out where there is only one."""

    dataset: str | None = None
    epsilon: float | None = None


def draw(audit: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns two panels with a point per network and rule."""
    rows = only(audit, "dataset", settings.dataset, "pepita_figure2a", "the audit")
    epsilons = sorted(set(rows.epsilon))
    epsilon = epsilons[0] if settings.epsilon is None else settings.epsilon
    rows = rows[rows.epsilon == epsilon]
    if rows.empty:
        raise UserError(f"pepita_figure2a: the audit has no epsilon {epsilon}; it has {epsilons}")
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(8.6, 4.2), layout="constrained")
    panels = canvas.subplots(1, 2, sharex=True, sharey=True)
    claimed = rows.apply(lambda row: row[f"accuracy {row.claim}"], axis=1)
    for axes, (name, title), robust in zip(panels, _PANELS.items(), (claimed, rows.worst), strict=True):
        axes.plot([0, 100], [0, 100], color="#bbbbbb", linewidth=0.8, zorder=0)
        for rule in rules:
            _points(axes, rows[rows.rule == rule], robust[rows.rule == rule], rule, rules)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("accuracy on natural images (%)")
        axes.set_ylim(-3, 103)
        if name == "claim":
            axes.set_ylabel(f"accuracy under attack (%), epsilon {epsilon:g}")
    panels[0].set_xlim(100 * min(0.9, float(rows.clean.min())) - 3, 103)
    canvas.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(rules), frameon=False)
    n = f"n = {rows.n_images.max()} images x {rows.n_seeds.min()} to {rows.n_seeds.max()} seeds"
    names = list(dict.fromkeys(rows.backbone))
    legend = "; ".join(f"{number} {display(name)}" for number, name in enumerate(names, 1)) if len(names) <= 6 else ""
    canvas.supxlabel(f"{display(rows.dataset.iloc[0])}, {n}.\n{legend}", fontsize=7)
    return canvas


def _points(axes: Axes, rows: pd.DataFrame, robust: "pd.Series[float]", rule: str, rules: list[str]) -> None:
    style = rule_style(rule, rules)
    axes.scatter(100 * rows.clean, 100 * robust, label=display(rule), color=style["color"], marker=style["marker"], s=36)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(rows.backbone), 1)}
    for clean, value, name in zip(rows.clean, robust, rows.backbone, strict=True):
        axes.annotate(str(numbers[name]), (100 * clean, 100 * value), xytext=(5, 4), textcoords="offset points", fontsize=8)


FIGURE = Figure(settings=Settings, draw=draw, source="audit")
