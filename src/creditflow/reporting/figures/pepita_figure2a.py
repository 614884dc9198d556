"""Accuracy on natural images against accuracy under attack, a point for each way to train a network (the PEPITA paper's
Figure 2A). On the line y = x nothing is lost to the attack. Both panels show the same networks. The left one has the
attack on which a claim of robustness rests. The right one has the worst case over the attacks of the audit at the same
epsilon. Compare points of about the same accuracy on natural images: rates of different rules do not correspond.
"""

from collections.abc import Mapping
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.pepita_figure2a import Settings
from creditflow.reporting.names import condition_title, display, span
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import LIGHT, VERMILION, End, label_points, legend_above, note


def draw(audit: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns two panels with a point per network and rule."""
    rows = only(audit, "dataset", settings.dataset, "pepita_figure2a", "the audit")
    rows = _chosen(_at_one_epsilon(rows, settings.epsilon), settings.variants)
    rules = rule_order(set(rows.rule))
    canvas = Canvas(figsize=(9.4, 4.4), layout="constrained")
    panels = canvas.subplots(1, 2, sharex=True, sharey=True)
    claimed = rows.apply(lambda row: row[f"accuracy {row.claim}"], axis=1)
    names = _names(rows, settings.variants)
    circled = settings.variants.get(settings.circled or "")
    claim = condition_title(str(rows.claim.iloc[0]), str(rows.backbone.iloc[0]))
    titles = (f"claim: {claim}", "worst case over all attacks")
    for axes, title, robust in zip(panels, titles, (claimed, rows.worst), strict=True):
        axes.plot([0, 100], [0, 100], color=LIGHT, linewidth=0.8, zorder=0)
        for rule in rules:
            _points(axes, rows[rows.rule == rule], robust[rows.rule == rule], rule_style(rule, rules))
        if circled is not None:
            _circle(axes, rows[rows.backbone == circled], robust[rows.backbone == circled])
        axes.set_title(title)
        axes.set_xlabel("accuracy on natural images (%)")
        axes.set_ylim(-3, 103)
    panels[0].set_ylabel(f"accuracy under attack (%), epsilon {rows.epsilon.iloc[0]:g}")
    panels[0].set_xlim(100 * min(0.9, float(rows.clean.min())) - 3, 103)
    legend_above(canvas, [panels[0]], len(rules))
    if not settings.variants:
        _key(canvas, names)
    note(canvas, _below(rows, settings))
    for axes, robust in zip(panels, (claimed, rows.worst), strict=True):
        colors = [rule_style(rule, rules)["color"] for rule in rows.rule]
        places = zip(100 * rows.clean, 100 * robust, rows.backbone, colors, strict=True)
        label_points(axes, [End(x, y, names[variant], color) for x, y, variant, color in places])
    return canvas


def _key(canvas: Canvas, names: Mapping[str, str]) -> None:
    """Draws a key at the right: what the number beside a point means."""
    handles = [Line2D([], [], linestyle="none", label=fill(display(variant), 26)) for variant in names]
    key = canvas.legend(
        handles=handles,
        loc="outside right upper",
        title="way of training",
        frameon=False,
        handlelength=0,
        handletextpad=0,
        alignment="left",
    )
    for handle, number in zip(key.get_texts(), names.values(), strict=True):
        handle.set_text(f"{number}  {handle.get_text()}")


def _below(rows: pd.DataFrame, settings: Settings) -> str:
    """Returns what stands below the panels: the sample, and what the labels of chosen variants mean."""
    n = f"n = {span(rows.n_images)} images x {span(rows.n_seeds)} seeds"
    place = f"{display(rows.dataset.iloc[0])}, {n}."
    if not settings.variants:
        return f"{place} The number beside a point is explained at the right."
    circled = f"; circled: {display(settings.variants[settings.circled])}" if settings.circled else ""
    return f"{place} Beside each point stands the label of its variant{circled}."


def _chosen(rows: pd.DataFrame, variants: Mapping[str, str]) -> pd.DataFrame:
    """Returns the rows of the variants. Raises UserError for one that the audit lacks."""
    for variant in variants.values():
        if variant not in set(rows.backbone):
            raise UserError(
                f"pepita_figure2a: the audit has no variant {variant!r}; it has {', '.join(sorted(set(rows.backbone)))}"
            )
    return rows[rows.backbone.isin(set(variants.values()))] if variants else rows


def _names(rows: pd.DataFrame, variants: Mapping[str, str]) -> dict[str, str]:
    """Returns what is written beside the points of each variant: its label, or else its number."""
    if variants:
        return {variant: label for label, variant in variants.items()}
    return {name: str(number) for number, name in enumerate(dict.fromkeys(rows.backbone), 1)}


def _at_one_epsilon(rows: pd.DataFrame, wanted: float | None) -> pd.DataFrame:
    epsilons = sorted(set(rows.epsilon))
    if wanted is None and len(epsilons) > 1:
        choices = ", ".join(f"{epsilon:g}" for epsilon in epsilons)
        raise UserError(f"pepita_figure2a: choose one epsilon of {choices} in the figure's settings")
    epsilon = epsilons[0] if wanted is None else wanted
    chosen = rows[rows.epsilon == epsilon]
    if chosen.empty:
        raise UserError(f"pepita_figure2a: the audit has no epsilon {epsilon}; it has {epsilons}")
    return chosen


def _points(axes: Axes, rows: pd.DataFrame, robust: "pd.Series[float]", style: dict[str, str]) -> None:
    label = display(rows.rule.iloc[0])
    axes.scatter(100 * rows.clean, 100 * robust, label=label, color=style["color"], marker=style["marker"], s=36)


def _circle(axes: Axes, rows: pd.DataFrame, robust: "pd.Series[float]") -> None:
    axes.scatter(100 * rows.clean, 100 * robust, s=150, facecolors="none", edgecolors=VERMILION, linewidths=1.2)


FIGURE = Figure(draw=draw, source="audit")
