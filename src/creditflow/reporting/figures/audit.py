"""The robustness audit. One panel per epsilon, one line per rule: robust accuracy, or a retrieval's mAP, under single
attacks, and, with its 95% interval, under the worst of all attacks for each image. The dashed line is the worst case of
the reference, mostly BP. Where a claim rests on an attack through the feedback weights, the way from its mark to the
black one is what that attack did not see."""

from math import isnan, nan
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.matched import matched_to
from creditflow.core.settings import NoSettings
from creditflow.reporting.figure import Figure
from creditflow.reporting.measures import Measure, measure_of
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import rule_order
from creditflow.verdict.statistics import INTERVAL

#: Attacks in the order of the legend: colour and marker (Okabe and Ito's palette).
_MARKS = {
    "pgd feedback": ("PGD, feedback gradient", "#D55E00", "^"),
    "pgd own": ("PGD, own backward pass", "#D55E00", "^"),
    "pgd exact": ("PGD, exact gradient", "#0072B2", "s"),
    "pgd_mse exact": ("PGD on the squared error", "#E69F00", "o"),
    "apgd_ce exact": ("APGD, exact gradient", "#56B4E9", "v"),
    "apgd_dlr exact": ("APGD on DLR, exact gradient", "#332288", "<"),
    "square none": ("Square", "#009E73", "D"),
    "apgd_scaled exact": ("APGD on scaled logits, exact gradient", "#882255", ">"),
    "cascade exact": ("cascade, exact gradient", "#117733", "*"),
    "transfer surrogate:twin": ("transfer from the twin", "#CC79A7", "P"),
    "transfer surrogate:other_seed": ("transfer from another seed", "#AA4499", "X"),
    "hag feedback": ("HAG, feedback gradient", "#D55E00", "^"),
    "hag exact": ("HAG, exact gradient", "#0072B2", "s"),
    "hag_100 exact": ("HAG with 100 iterations, exact gradient", "#56B4E9", "v"),
    "sdha feedback": ("SDHA, feedback gradient", "#E69F00", "P"),
    "sdha exact": ("SDHA, exact gradient", "#332288", "<"),
    "sdha_100 exact": ("SDHA with 100 iterations, exact gradient", "#AA4499", ">"),
    "hamming_pgd exact": ("PGD on the code, exact gradient", "#009E73", "D"),
    "mainstay_pgd exact": ("PGD on the classes' code, exact gradient", "#117733", "*"),
}


def draw(audit: pd.DataFrame, settings: NoSettings) -> Canvas:
    """Returns the figure; panels are epsilons, and lines of panels datasets and backbones."""
    places = list(dict.fromkeys(zip(audit.dataset, audit.backbone, strict=True)))
    epsilons, rules, measure = sorted(set(audit.epsilon)), rule_order(set(audit.rule)), measure_of(audit)
    canvas = Canvas(
        figsize=(1.2 + 3.3 * len(epsilons), 1.1 + (0.6 + 0.42 * len(rules)) * len(places)), layout="constrained"
    )
    grid = canvas.subplots(len(places), len(epsilons), sharex=True, sharey="row", squeeze=False)
    for (dataset, backbone), line in zip(places, grid, strict=True):
        for epsilon, axes in zip(epsilons, line, strict=True):
            chosen = (audit.dataset == dataset) & (audit.backbone == backbone) & (audit.epsilon == epsilon)
            shown = [rule for rule in rules if rule in set(audit[chosen].rule)]
            _panel(axes, audit[chosen], shown, len(rules), measure)
        line[0].set_ylabel(f"{fill(display(backbone), 20)}\n{display(dataset)}", fontsize=8)
    for epsilon, axes in zip(epsilons, grid[0], strict=True):
        axes.set_title(f"epsilon {epsilon:g}", fontsize=10)
    for axes in grid[-1]:
        axes.set_xlabel(f"{measure.under_attack} (%)")
    handles = {
        label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    canvas.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    sample = f"n = {span(audit.n_images)} {measure.examples} x {span(audit.n_seeds)} seeds"
    fixed = "; words of these networks only" if (audit.scope != "any seed").any() else ""
    canvas.supxlabel(f"{sample}; intervals: {INTERVAL}{fixed}.", fontsize=7)
    return canvas


def _panel(axes: Axes, audit: pd.DataFrame, rules: list[str], height: int, measure: Measure) -> None:
    rows: dict[str, dict[Any, Any]] = {row["rule"]: row for row in audit.to_dict("records")}
    for place, rule in enumerate(rules):
        _line(axes, rows[rule], place, measure)
    references = [row for row in rows.values() if row["net_effect"] == "" and matched_to(row["rule"]) is None]
    for reference in references:
        axes.axvline(100 * reference["worst"], color="black", linestyle="--", linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(rules)), [display(rule) for rule in rules])
    axes.set_ylim(height - 0.5, -0.6)
    axes.set_xlim(-3, 103)


def _line(axes: Axes, row: dict[Any, Any], place: int, measure: Measure) -> None:
    shown = {name: 100 * row.get(f"{measure.prefix}{name}", nan) for name in _MARKS}
    worst, low, high = (100 * row[name] for name in ("worst", "worst_low", "worst_high"))
    span = [value for value in (*shown.values(), worst) if not isnan(value)]
    axes.plot([min(span), max(span)], [place, place], color="#BBBBBB", linewidth=1.5, zorder=1)
    for name, value in shown.items():
        label, colour, marker = _MARKS[name]
        if not isnan(value):
            axes.plot(
                [value], [place], color=colour, marker=marker, markersize=5.5, linestyle="none", label=label, zorder=2
            )
    axes.errorbar(
        [worst],
        [place],
        xerr=[[worst - low], [high - worst]],
        color="black",
        marker="|",
        markersize=11,
        capsize=2,
        linewidth=1,
        label="worst case",
        zorder=3,
    )
    if row["net_effect"]:
        words = f"claim: {row['claim_verdict']}; net: {row['net_effect']}"
        axes.annotate(
            words, (1.0, place - 0.28), xycoords=("axes fraction", "data"), ha="right", fontsize=6.5, style="italic"
        )


FIGURE = Figure(draw=draw, source="audit")
