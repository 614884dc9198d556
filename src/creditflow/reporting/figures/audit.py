"""The robustness audit: a panel for each size of the perturbation (epsilon), and in it a row for each rule. The open
ring is accuracy, or a retrieval's mAP, under the attack on which a claim of robustness rests. The black diamond, with
its 95% interval, is what remains in the worst case over all attacks: an image counts as fooled if any attack fools it.
The bar between the two is what the claim's attack does not see. The short upright line is accuracy without an attack.
Small marks below are the other attacks. The dashed line is the worst case of the network that the row is compared
with. Mostly this is BP, but each rule may have a reference of its own. At the right stands the verdict: what becomes
of the claim, and the net effect of the rule in the worst case."""

from math import isnan
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.settings import NoSettings
from creditflow.reporting.figure import Figure
from creditflow.reporting.measures import Measure, measure_of
from creditflow.reporting.names import condition_title, display, span
from creditflow.reporting.rules import rule_order
from creditflow.reporting.style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    legend_above,
    note,
)
from creditflow.verdict.statistics import INTERVAL

#: A gradient's colours, and markers in the order in which the attacks of an audit take them.
_COLORS = {"exact": BLUE, "feedback": ORANGE, "own": ORANGE, "none": GREEN, "surrogate": PURPLE, "through": BROWN}
_MARKERS = ("s", "v", "D", "P", "X", "^", "<", ">", "*", "p", "h", "d", "8")

#: Points of accuracy that two marks of a lane are apart at least; where lanes are, in rows; how many there are.
_APART, _FIRST_LANE, _LANE, _LANES = 5.0, 0.16, 0.17, 3

#: How the labels begin that come first in the legend.
_FIRST = ("accuracy without", "mAP without", "claim", "worst case over", "worst case of")

#: Height of a row in inches, and letters of a line of a verdict.
_ROW, _LETTERS = 0.62, 34


def draw(audit: pd.DataFrame, settings: NoSettings) -> Canvas:
    """Returns the figure; panels are epsilons, and lines of panels datasets and backbones."""
    places = list(dict.fromkeys(zip(audit.dataset, audit.backbone, strict=True)))
    epsilons, rules, measure = sorted(set(audit.epsilon)), rule_order(set(audit.rule)), measure_of(audit)
    canvas = Canvas(
        figsize=(1.4 + 5.2 * len(epsilons), 1.5 + (0.5 + _ROW * len(rules)) * len(places)), layout="constrained"
    )
    claim = _claim(audit, measure)
    grid = canvas.subplots(len(places), len(epsilons), sharex=True, sharey="row", squeeze=False)
    for (dataset, backbone), line in zip(places, grid, strict=True):
        for epsilon, axes in zip(epsilons, line, strict=True):
            chosen = (audit.dataset == dataset) & (audit.backbone == backbone) & (audit.epsilon == epsilon)
            shown = [rule for rule in rules if rule in set(audit[chosen].rule)]
            _panel(axes, audit[chosen], shown, len(rules), measure, claim)
        line[0].set_ylabel(f"{fill(display(backbone), 20)}\n{display(dataset)}", fontsize=8)
    for epsilon, axes in zip(epsilons, grid[0], strict=True):
        axes.set_title(f"epsilon {epsilon:g}")
        axes.annotate("verdict", (1.02, 1.02), xycoords="axes fraction", fontsize=8, fontweight="bold")
    for axes in grid[-1]:
        axes.set_xlabel(f"{measure.under_attack} (%)")
    legend_above(canvas, list(grid.flat), 2 + len(epsilons), first=_FIRST)
    note(canvas, *_below(audit, measure))
    return canvas


def _claim(audit: pd.DataFrame, measure: Measure) -> str:
    """Returns the label of the claims' marks: the attack, and each gradient that a rule's claim rests on."""
    measured = {column.removeprefix(measure.prefix) for column in measure.columns(audit)}
    claims = dict.fromkeys(zip(audit.claim, audit.backbone, strict=True))
    titles = list(dict.fromkeys(condition_title(claim, backbone) for claim, backbone in claims if claim in measured))
    attacks = {title.partition(", ")[0] for title in titles}
    if len(attacks) == 1:
        titles = [titles[0], *(title.partition(", ")[2] for title in titles[1:])]
    return f"claim: {' or '.join(titles)}"


def _below(audit: pd.DataFrame, measure: Measure) -> list[str]:
    """Returns the sentences below the panels: where it was measured, on how much, and what the words hold for."""
    networks = dict.fromkeys(
        f"{display(backbone)} on {display(dataset)}"
        for dataset, backbone in zip(audit.dataset, audit.backbone, strict=True)
    )
    sample = f"n = {span(audit.n_images)} {measure.examples} x {span(audit.n_seeds)} seeds; intervals: {INTERVAL}."
    fixed = "The verdicts speak of these networks only." if (audit.scope != "any seed").any() else ""
    place = f"{next(iter(networks))}." if len(networks) == 1 else ""  # of several, each stands beside its rows
    return [place, sample, fixed]


def _panel(axes: Axes, audit: pd.DataFrame, rules: list[str], height: int, measure: Measure, claim: str) -> None:
    rows: dict[str, dict[Any, Any]] = {row["rule"]: row for row in audit.to_dict("records")}
    conditions = [column.removeprefix(measure.prefix) for column in measure.columns(audit)]
    styles = _styles(conditions)
    for place, rule in enumerate(rules):
        _reference(axes, rows[rule], place)
        _line(axes, rows[rule], place, conditions, measure, claim)
        _other_attacks(axes, rows[rule], place, styles, measure)
    axes.set_yticks(range(len(rules)), [display(rule) for rule in rules])
    axes.set_ylim(height - 0.4, -0.5)
    axes.set_xlim(-3, 103)


def _reference(axes: Axes, row: dict[Any, Any], place: int) -> None:
    """Draws the worst case of the network that the row is compared with. For a reference, this is its own."""
    worst = 100 * (row["worst"] - row["difference"] if row["net_effect"] else row["worst"])
    look: dict[str, Any] = {"color": BLACK, "linestyle": "--", "linewidth": 0.8, "zorder": 0}
    axes.plot([worst, worst], [place - 0.5, place + 0.5], label="worst case of the reference", **look)


def _styles(conditions: list[str]) -> dict[str, tuple[str, str]]:
    """Returns the colour of each attack's gradient, and a marker for each attack."""
    attacks = list(dict.fromkeys(condition.split()[0] for condition in conditions))
    styles = {}
    for condition in conditions:
        attack, gradient = condition.split()
        color = SKY if gradient == "surrogate:other_seed" else _COLORS.get(gradient.partition(":")[0], GREY)
        styles[condition] = (color, _MARKERS[attacks.index(attack) % len(_MARKERS)])
    return styles


def _line(axes: Axes, row: dict[Any, Any], place: int, conditions: list[str], measure: Measure, claim: str) -> None:
    """Draws the bar from the claim to the worst case, the accuracy without an attack, and the verdict."""
    worst, low, high = (100 * row[name] for name in ("worst", "worst_low", "worst_high"))
    mark: dict[str, Any] = {"linestyle": "none", "zorder": 3}
    clean = measure.under_attack.removeprefix("robust ").removesuffix(" under attack")
    axes.plot(
        [100 * row["clean"]],
        [place],
        marker="|",
        markersize=15,
        markeredgewidth=2.2,
        color=GREEN,
        label=f"{clean} without an attack",
        **mark,
    )
    if row["claim"] in conditions:
        claimed = 100 * row[f"{measure.prefix}{row['claim']}"]
        axes.plot([claimed, worst], [place, place], color=LIGHT, linewidth=4, solid_capstyle="butt", zorder=1)
        axes.plot(
            [claimed],
            [place],
            marker="o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=VERMILION,
            markeredgewidth=1.8,
            label=claim,
            **mark,
        )
    bounds = [[max(0.0, worst - low)], [max(0.0, high - worst)]]
    axes.errorbar(
        [worst],
        [place],
        xerr=bounds,
        color=BLACK,
        marker="D",
        markersize=4.5,
        capsize=2.5,
        linewidth=1,
        label="worst case over all attacks",
        zorder=4,
    )
    _verdict(axes, row, place)


def _verdict(axes: Axes, row: dict[Any, Any], place: int) -> None:
    """Writes the verdict at the right of the panel; nothing but the word for the reference."""
    words = f"claim: {row['claim_verdict']}\n{fill('net: ' + row['net_effect'], _LETTERS)}"
    axes.annotate(
        words if row["net_effect"] else "reference",
        (1.02, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=7.5,
        linespacing=1.15,
        style="normal" if row["net_effect"] else "italic",
        color=BLACK if row["net_effect"] else GREY,
        annotation_clip=False,
    )


def _other_attacks(
    axes: Axes, row: dict[Any, Any], place: int, styles: dict[str, tuple[str, str]], measure: Measure
) -> None:
    """Draws small marks of all attacks but the claim's in lanes below the bar, so that none covers another."""
    values = {name: 100 * row[f"{measure.prefix}{name}"] for name in styles if name != row["claim"]}
    ends = [float("-inf")] * _LANES
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        if isnan(value):
            continue
        lane = next((index for index, end in enumerate(ends) if value - end >= _APART), ends.index(min(ends)))
        ends[lane] = value
        color, marker = styles[name]
        axes.plot(
            [value],
            [place + _FIRST_LANE + _LANE * lane],
            color=color,
            marker=marker,
            markersize=4,
            markeredgewidth=0,
            linestyle="none",
            label=condition_title(name, row["backbone"]),
            zorder=2,
        )


FIGURE = Figure(draw=draw, source="audit")
