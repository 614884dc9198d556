"""Accuracy on held-out images for each learning rate of W, across, and each ratio of another pathway's to it, down (the
SAL paper's Figure 5). Each network counts at its best epoch, and numbers are means over seeds. A cell is empty where
one of its networks diverged."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.populations.rates import edge_of_grid
from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.sal_figure5 import Settings
from creditflow.reporting.names import display


def draw(members: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns one panel."""
    scores = grid(members, settings.variants)
    canvas = Canvas(figsize=(1.8 + 0.75 * len(scores.columns), 1.5 + 0.42 * len(scores)), layout="constrained")
    axes = canvas.subplots()
    image = axes.imshow(100 * scores.to_numpy(), cmap="viridis", aspect="auto")
    axes.grid(visible=False)
    _write_numbers(axes, scores, members, settings.variants)
    axes.set_xticks(range(len(scores.columns)), [f"{rate:g}" for rate in scores.columns])
    axes.set_yticks(range(len(scores)), list(scores.index))
    axes.set_xlabel("learning rate of W")
    axes.set_ylabel(settings.title)
    canvas.colorbar(image, ax=axes, label="accuracy (%)")
    first = members.iloc[0]
    place = f"{display(first.dataset)}, {display(first.rule)}"
    sample = f"{place}, n = {_sample(first.saved)} x {members.seed.nunique()} seeds"
    canvas.supxlabel(f"{sample}\n{_at_the_edge(scores)}", fontsize=7)
    return canvas


def _at_the_edge(scores: pd.DataFrame) -> str:
    """Returns a sentence on how many rows have their best rate on the edge of the grid."""
    tried = [float(rate) for rate in scores.columns]
    rows = scores.dropna(how="all").to_numpy()
    edges = [edge_of_grid(tried[int(np.nanargmax(row))], tried) for row in rows]
    return f"In {sum(map(bool, edges))} of {len(edges)} rows the best rate is the lowest or the highest tried."


def _write_numbers(axes: Axes, scores: pd.DataFrame, members: pd.DataFrame, variants: dict[str, str]) -> None:
    """Writes the accuracy into each cell; white on the dark colours of values below the median."""
    middle = 100 * float(np.nanmedian(scores.to_numpy()))
    lost = members[members.diverged_at_step > 0]
    diverged = set(zip(lost.backbone, lost.learning_rate, strict=True))
    for row, (label, values) in enumerate(zip(scores.index, 100 * scores.to_numpy(), strict=True)):
        for column, value in enumerate(values):
            if value == value:
                text, size, color = f"{value:.1f}", 8, "white" if value < middle else "black"
            else:
                has_diverged = (variants[label], scores.columns[column]) in diverged
                text, size, color = "diverged" if has_diverged else "-", 6, "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)


def _sample(saved: Any) -> str:
    """Returns how many images of which split the networks were chosen by."""
    training = saved.training
    if training.select == "last":
        raise UserError(
            "sal_figure5: its networks were not chosen by an accuracy (select: last), so there is none to show"
        )
    n_images = saved.content["measured_images"][f"{training.select_on}_accuracy"]
    return f"{n_images} {'test' if training.select_on == 'test' else 'held-out'} images"


def grid(members: pd.DataFrame, variants: dict[str, str]) -> pd.DataFrame:
    """Returns the mean best score over seeds, with a row per label and a column per learning rate.

    It is NaN where a seed diverged, and where there is no such network.

    Raises UserError if every network diverged.
    """
    rows = {}
    for label, variant in variants.items():
        by_rate = (
            members[members.backbone == variant]
            .groupby("learning_rate")
            .agg(score=("best_score", "mean"), diverged=("diverged_at_step", "max"))
        )
        rows[label] = by_rate.score.where(by_rate.diverged == 0)
    scores = pd.DataFrame(rows).T.sort_index(axis=1)
    if not scores.notna().to_numpy().any():
        raise UserError("sal_figure5: every network diverged; lower the learning rates")
    return scores


FIGURE = Figure(draw=draw, source="populations")
