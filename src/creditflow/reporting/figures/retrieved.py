"""Some queries and the first ten images found for each: by the clean query, and by the query attacked through the exact
gradient and through the feedback weights. Framed in green is what shares a label with the query, in orange what does
not."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from numpy.typing import NDArray

from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.retrieved import Settings
from creditflow.reporting.names import display

_GREEN, _ORANGE = "#009E73", "#D55E00"  # of the palette that colour-blind readers can tell apart

#: What stands beside attacked queries, by the attacker's gradient.
_LABELS = {"exact": "exact\ngradient", "feedback": "own feedback\npath", "none": "no\ngradient"}


def draw(gallery: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure; rows are clean and attacked queries, columns the query and what is found."""
    first = gallery.iloc[0]
    n = min(settings.queries, len(first.clean_query))
    n_retrieved = first.clean_found.shape[1]
    lines = 1 + len(gallery)
    canvas = Canvas(figsize=(1.6 + 0.62 * (n_retrieved + 1), 0.7 + 0.72 * n * lines), layout="constrained")
    grid = canvas.subplots(n * lines, n_retrieved + 1, squeeze=False)
    for query in range(n):
        parts = [("clean", first)] + [("attacked", row) for _, row in gallery.iterrows()]
        for (kind, row), axes in zip(parts, grid[query * lines :], strict=False):
            _picture(axes[0], row[f"{kind}_query"][query], "#000000", 2)
            label = "clean" if kind == "clean" else _LABELS.get(row.gradient, display(row.gradient))
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
            for place, cell in enumerate(axes[1:]):
                hit = bool(row[f"{kind}_relevant"][query, place])
                _picture(cell, row[f"{kind}_found"][query, place], _GREEN if hit else _ORANGE, 1.5)
    grid[0][0].set_title("query", fontsize=8)
    grid[0][1].set_title("found", fontsize=8, loc="left")
    attack = f"{display(first.attack)} at epsilon {first.epsilon:g}"
    canvas.supxlabel(
        f"{display(first.backbone)}, {display(first.dataset)}, {display(first.rule)}, seed {first.seed}, {attack}.",
        fontsize=7,
    )
    return canvas


def _picture(axes: Axes, pixels: NDArray[Any], frame: str, width: float) -> None:
    grey = pixels.shape[0] == 1
    axes.imshow(pixels[0] if grey else pixels.transpose(1, 2, 0), cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set(visible=True, color=frame, linewidth=width)


FIGURE = Figure(draw=draw, source="gallery")
