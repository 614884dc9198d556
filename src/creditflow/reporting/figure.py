"""What a figure is, and how all figures look and are saved."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.reporting.style import LOOK


@dataclass(frozen=True)
class Figure:
    """A figure (a file in `reporting/figures`).

    Attributes:
        draw: (frame, settings) -> matplotlib figure. The settings are those of `reporting/figures/settings`.
        source: the frame that it shows: "summary", "audit", "records", "populations", "outcomes" or "gallery".
    """

    draw: Callable[[pd.DataFrame, Any], Canvas]
    source: str = "summary"


def only(
    rows: pd.DataFrame, column: str, wanted: str | None, figure: str, what: str, *, setting: str | None = None
) -> pd.DataFrame:
    """Returns the rows of the wanted dataset or backbone, or, where there is only one, of this one.

    Args:
        rows: the rows of all of them.
        column: the column that holds the dataset or backbone.
        wanted: its value in the rows that are shown; None if the settings leave it out.
        figure: the id of the figure, for messages.
        what: what the figure shows, for messages.
        setting: the key of the figure's settings that chooses, if it is not called like the column.

    Raises:
        UserError: if there is no such row, or if nothing is wanted and there are several.
    """
    known = sorted(set(rows[column]))
    if wanted is None and len(known) > 1:
        raise UserError(f"{figure}: choose one {setting or column} of {', '.join(known)} in the figure's settings")
    chosen = rows if wanted is None else rows[rows[column] == wanted]
    if chosen.empty:
        choice = (
            f"{', '.join(known)}; choose by `{setting or column}` in the figure's settings"
            if known
            else "none; take the figure away, or have the experiment make it"
        )
        raise UserError(f"{figure}: no record of {what} for {column} {wanted or 'any'!r}; found: {choice}")
    return chosen


def write_figure(figure: Figure, frame: pd.DataFrame, settings: Any, stem: Path) -> None:
    """Draws and writes `<stem>.pdf`, `.svg` and `.png`; equal numbers give equal files."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a matplotlibrc says, in the user's home or beside the results
        matplotlib.rcParams.update(LOOK)
        canvas = figure.draw(frame, settings)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None}), ("png", {})):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=suffix, metadata=metadata, bbox_inches="tight")
            files.write_atomically(stem.with_suffix(f".{suffix}"), buffer.getvalue())
