"""How large the smallest perturbation is that fools a network, for networks trained with different rules. A curve shows
the share of images that the network classifies correctly and that no perturbation up to this size fools. This counts
the perturbations that were found by attacks that look for small ones. Where several of them attacked the same networks,
each image counts with the smallest of their perturbations. The curves begin at the accuracy without an attack; where
one crosses the line at 50%, half of all images are wrong. All attacks use the exact gradient. Bands are intervals of
single sizes.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.norms import Settings
from creditflow.reporting.names import display, span
from creditflow.reporting.outcomes import common_images, on_images
from creditflow.reporting.rules import rule_order, rule_style
from creditflow.reporting.style import BAND, WIDTH, legend_above, note, reference_line
from creditflow.verdict.statistics import accuracy

#: Sizes at which the curves are drawn, and the quantile of the perturbations at which the axis ends.
_POINTS, _END = 60, 0.98

_AXES = {"linf": "L-infinity norm", "l2": "L2 norm", "l0": "number of pixels"}
_UNITS = {"L-infinity norm": ", pixels in [0, 1]", "L2 norm": ", pixels in [0, 1]", "number of pixels": ""}


def draw(outcomes: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure: a panel per norm."""
    measured = outcomes[outcomes.attack.isin(settings.attacks) & (outcomes.gradient == "exact")]
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        measured = only(measured, column, wanted, "norms", "smallest perturbations")
    norms = measured.record.map(lambda record: record.content["settings"]["norm"])
    panels = [_most_complete(measured[norms == norm]) for norm in ("linf", "l2", "l0") if norm in set(norms)]
    rules = rule_order({rule for panel in panels for rule in panel.rule})
    canvas = Canvas(figsize=(1.0 + 3.7 * len(panels), 3.7), layout="constrained")
    grid = canvas.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    notes = [_panel(axes, panel, rules) for axes, panel in zip(grid, panels, strict=True)]
    grid[0].set_ylabel("images still classified correctly (%)")
    legend_above(canvas, list(grid), len(rules))
    note(canvas, f"{display(measured.backbone.iloc[0])} on {display(measured.dataset.iloc[0])}.", *notes)
    return canvas


def _most_complete(measured: pd.DataFrame) -> pd.DataFrame:
    """Returns the records of those attacks of one norm that met the most networks: all of them met the same ones.

    A network that fewer attacks met would seem more robust than the others.
    """
    met = {attack: frozenset(zip(rows.rule, rows.seed, strict=True)) for attack, rows in measured.groupby("attack")}
    most = max(met.values(), key=lambda networks: (len(networks), sorted(networks)))
    return measured[measured.attack.isin([attack for attack, networks in met.items() if networks == most])]


def _distances(panel: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """Returns the smallest perturbation (seeds, images) for each rule, on the images that all records have."""
    for record in panel.record:
        if "distance" not in record.outcomes:
            raise UserError(f"norms: {record.keys.attack} measures no distance; take it off the setting `attacks`")
    images = common_images(list(panel.record), "norms")
    return {
        str(rule): np.stack(
            [
                np.min([on_images(record, record.outcomes["distance"], images) for record in of_seed.record], axis=0)
                for _, of_seed in of_rule.groupby("seed", sort=True)
            ]
        ).astype(np.float64)
        for rule, of_rule in panel.groupby("rule", sort=True)
    }


def _panel(axes: Axes, panel: pd.DataFrame, rules: list[str]) -> str:
    """Draws one norm, and returns what its curves rest on."""
    distances = _distances(panel)
    finite = np.concatenate([values[np.isfinite(values)] for values in distances.values()])
    sizes = np.linspace(0, float(np.quantile(finite, _END)) if finite.size else 1.0, _POINTS)
    for rule in rules:
        if rule in distances:
            curve = [accuracy(distances[rule] > size) for size in sizes]
            values, lows, highs = (
                [100 * getattr(estimate, name) for estimate in curve] for name in ("value", "low", "high")
            )
            style = rule_style(rule, rules)
            axes.plot(
                sizes,
                values,
                label=display(rule),
                color=style["color"],
                marker=style["marker"],
                markersize=4,
                markevery=(2 * rules.index(rule), 12),
                linewidth=WIDTH,
            )
            axes.fill_between(sizes, lows, highs, color=style["color"], alpha=BAND, linewidth=0)
    reference_line(axes, 50, "half of all images")
    axes.set_ylim(-3, 103)
    axes.set_xlim(0, float(sizes[-1]))
    name = _AXES[panel.record.iloc[0].content["settings"]["norm"]]
    axes.set_xlabel(f"size of the perturbation ({name}{_UNITS[name]})")
    attacks = " and ".join(display(attack) for attack in dict.fromkeys(panel.attack))
    axes.set_title(f"smallest found by {attacks}", fontsize=9)
    shapes = [values.shape for values in distances.values()]
    return f"{name}: n = {shapes[0][1]} images x {span(shape[0] for shape in shapes)} seeds."


FIGURE = Figure(draw=draw, source="outcomes")
