"""Accuracy on held-out images for each learning rate of W, across, and each ratio of another pathway's to it, down (the SAL paper's
Figure 5). Each network at its best epoch, means over seeds; a cell is empty where one of them diverged."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure
from creditflow.reporting.names import display


@dataclass(frozen=True)
class Settings:
    """variants: {label: variant} from top to bottom. title: what the labels are of. rule, dataset: SAL and the first if left out."""

    variants: dict[str, str] = field(default_factory=dict)
    title: str = "learning rate of V over that of W"
    rule: str = "sal"
    dataset: str | None = None


def draw(members: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns one panel."""
    scores = grid(members, settings.variants)
    canvas = Canvas(figsize=(1.8 + 0.75 * len(scores.columns), 1.5 + 0.42 * len(scores)), layout="constrained")
    axes = canvas.subplots()
    image = axes.imshow(100 * scores.to_numpy(), cmap="viridis", aspect="auto")
    axes.grid(visible=False)
    middle = 100 * float(np.nanmedian(scores.to_numpy()))
    lost = members[members.diverged_at_step > 0]
    diverged = set(zip(lost.backbone, lost.learning_rate, strict=True))
    for row, (label, values) in enumerate(zip(scores.index, 100 * scores.to_numpy(), strict=True)):
        for column, value in enumerate(values):
            missing = "diverged" if (settings.variants[label], scores.columns[column]) in diverged else "-"
            text, color = (
                (f"{value:.1f}", "white" if value < middle else "black") if value == value else (missing, "black")
            )
            axes.text(column, row, text, ha="center", va="center", fontsize=8 if value == value else 6, color=color)
    axes.set_xticks(range(len(scores.columns)), [f"{rate:g}" for rate in scores.columns])
    axes.set_yticks(range(len(scores)), list(scores.index))
    axes.set_xlabel("learning rate of W")
    axes.set_ylabel(settings.title)
    canvas.colorbar(image, ax=axes, label="accuracy (%)")
    first = members.iloc[0]
    training = first.saved.training
    if training.select == "last":
        raise UserError(
            "sal_figure5: its networks were not chosen by an accuracy (select: last), so there is none to show"
        )
    n, images = (
        first.saved.content["measured_images"][f"{training.select_on}_accuracy"],
        "test" if training.select_on == "test" else "held-out",
    )
    canvas.supxlabel(
        f"{display(first.dataset)}, {display(first.rule)}, n = {n} {images} images x {members.seed.nunique()} seeds",
        fontsize=7,
    )
    return canvas


def grid(members: pd.DataFrame, variants: dict[str, str]) -> pd.DataFrame:
    """Returns the mean best score, a row per label and a column per learning rate; NaN where a seed diverged or there is no such member.

    Raises UserError if every network diverged.
    """
    rows = {}
    for label, variant in variants.items():
        its = (
            members[members.backbone == variant]
            .groupby("learning_rate")
            .agg(score=("best_score", "mean"), bad=("diverged_at_step", "max"))
        )
        rows[label] = its.score.where(its.bad == 0)
    scores = pd.DataFrame(rows).T.sort_index(axis=1)
    if not scores.notna().to_numpy().any():
        raise UserError("sal_figure5: every network diverged; lower the learning rates")
    return scores


FIGURE = Figure(settings=Settings, draw=draw, source="populations")
