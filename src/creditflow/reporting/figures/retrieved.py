"""Some queries and the first ten images found for each. Each query is used without an attack, attacked through the
exact gradient, and attacked through the rule's own feedback weights. Below each image stands its class. If an image has
several classes, the first one stands there, and how many more it has. A green frame means that the image shares a class
with the query, an orange frame that it does not. The number at the right says how many of the ten share a class with
it.
"""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.retrieved import Settings
from creditflow.reporting.names import display
from creditflow.reporting.style import BLACK, GRADIENT_WORDS, RIGHT, SMALL, WRONG, note

#: How many letters fit below a picture.
_LONGEST = 14


def draw(gallery: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure; rows are clean and attacked queries, columns the query and what is found."""
    first = gallery.iloc[0]
    n = min(settings.queries, len(first.clean_query))
    n_retrieved, names = first.clean_found.shape[1], first.class_names
    lines = 1 + len(gallery)
    canvas = Canvas(figsize=(2.2 + 0.62 * (n_retrieved + 1), 0.7 + 0.85 * n * lines), layout="constrained")
    grid = canvas.subplots(n * lines, n_retrieved + 1, squeeze=False)
    for query in range(n):
        parts = [("clean", first)] + [("attacked", row) for _, row in gallery.iterrows()]
        for (kind, row), axes in zip(parts, grid[query * lines :], strict=False):
            _picture(axes[0], row[f"{kind}_query"][query], _classes(first.query_labels[query], names), BLACK, 2)
            gradient = GRADIENT_WORDS.get(row.gradient, display(row.gradient))
            label = "no attack" if kind == "clean" else fill(gradient, 12)
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            for place, cell in enumerate(axes[1:]):
                frame = RIGHT if row[f"{kind}_relevant"][query, place] else WRONG
                classes = _classes(row[f"{kind}_found_labels"][query, place], names)
                _picture(cell, row[f"{kind}_found"][query, place], classes, frame, 1.5)
            _count(axes[-1], row[f"{kind}_relevant"][query])
    grid[0][0].set_title("query", fontsize=8)
    grid[0][1].set_title("found", fontsize=8, loc="left")
    attack = f"{display(first.attack)} at epsilon {first.epsilon:g}"
    network = f"{display(first.backbone)} trained with {display(first.rule)} on {display(first.dataset)}"
    note(canvas, f"{network}, seed {first.seed}. {attack}.", "Green: same class as the query; orange: another class.")
    return canvas


def _count(axes: Axes, relevant: NDArray[Any]) -> None:
    axes.annotate(
        f"{int(relevant.sum())} of {len(relevant)}",
        (1.15, 0.5),
        xycoords="axes fraction",
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
    )


def _classes(label: NDArray[Any], names: Sequence[str]) -> str:
    """Returns the name of a class, or of the first of several (zeros and ones) and how many more there are."""
    several = [names[index] for index in (np.flatnonzero(label).tolist() if label.ndim else [int(label)])]
    if not several:
        return "no class"
    more = f" + {len(several) - 1}" if len(several) > 1 else ""
    length = _LONGEST - len(more)
    return (several[0] if len(several[0]) <= length else f"{several[0][: length - 1]}\u2026") + more


def _picture(axes: Axes, pixels: NDArray[Any], classes: str, frame: str, width: float) -> None:
    grey = pixels.shape[0] == 1
    axes.imshow(pixels[0] if grey else pixels.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_xlabel(classes, fontsize=6, labelpad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame, linewidth=width)


FIGURE = Figure(draw=draw, source="gallery")
