"""Accuracy after the last epoch of training, where only some of SAL's matrices learn (the SAL paper's Figure 4, at its
end). W leads up and Wb down; V and Vb connect the two streams. Large dots are means over seeds, bars go from the
least to the greatest seed, and small dots are the seeds. "Linear" is a linear network trained with backpropagation.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.sal_figure4 import Settings
from creditflow.reporting.names import display, span
from creditflow.reporting.style import BLACK, GREY, SMALL, VERMILION, note


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns one panel, a row for each label."""
    rows = records[(records.metric == settings.metric) & records.epoch.notna()]
    rows = only(rows, "dataset", settings.dataset, "sal_figure4", settings.metric)
    finals = {label: _at_the_end(rows, place) for label, place in settings.lines.items()}
    canvas = Canvas(figsize=(6.4, 1.2 + 0.3 * len(finals)), layout="constrained")
    axes = canvas.subplots()
    for place, (label, final) in enumerate(finals.items()):
        _row(axes, place, 100 * final.value, VERMILION if settings.lines[label].endswith(" sal") else BLACK)
    axes.set_yticks(range(len(finals)), [_with_capital(label) for label in finals])
    axes.set_ylim(len(finals) - 0.5, -0.5)
    axes.set_xlabel(f"{settings.metric.replace('_', ' ')} after the last epoch (%)")
    seeds = span(final.seed.nunique() for final in finals.values())
    ends = span(final.epoch.max() for final in finals.values())
    note(canvas, f"{display(rows.dataset.iloc[0])}, n = {rows.n.max()} images x {seeds} seeds, epoch {ends}.")
    return canvas


def _at_the_end(rows: pd.DataFrame, place: str) -> pd.DataFrame:
    """Returns the rows of a population's last epoch, one for each seed. Raises UserError if there is none."""
    variant, _, rule = place.partition(" ")
    chosen = rows[(rows.backbone == variant) & (rows.rule == rule)]
    if chosen.empty:
        raise UserError(f"sal_figure4: no record of {place!r}; name a variant and a rule, such as 'mlp_200 sal'")
    last: pd.DataFrame = chosen[chosen.epoch == chosen.epoch.max()]
    return last


def _row(axes: Axes, place: int, values: "pd.Series[float]", color: str) -> None:
    mean = float(values.mean())
    axes.plot([values.min(), values.max()], [place, place], color=color, linewidth=1.2, zorder=1)
    axes.plot(values, np.full(len(values), place), linestyle="none", marker=".", markersize=3, color=GREY, zorder=2)
    axes.plot([mean], [place], linestyle="none", marker="o", markersize=6, color=color, zorder=3)
    axes.annotate(
        f"{mean:.1f}",
        (1.02, place),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
    )


def _with_capital(label: str) -> str:
    return label[:1].upper() + label[1:]


FIGURE = Figure(draw=draw, source="records")
