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

#: Okabe and Ito's palette, which colour-blind readers can tell apart, and markers that a black-and-white print keeps.
RULE_STYLES = {
    "bp": {"color": "#000000", "marker": "o"},
    "usf": {"color": "#0072B2", "marker": "s"},
    "frsf": {"color": "#D55E00", "marker": "^"},
    "brsf": {"color": "#009E73", "marker": "D"},
    "fa": {"color": "#CC79A7", "marker": "v"},
    "dfa": {"color": "#E69F00", "marker": "P"},
    "pepita": {"color": "#56B4E9", "marker": "X"},
    "wm": {"color": "#0072B2", "marker": "<"},
    "kp": {"color": "#009E73", "marker": ">"},
    "sal": {"color": "#D55E00", "marker": "*"},
    "dfa_targets": {"color": "#E69F00", "marker": "P"},
    "dtp": {"color": "#0072B2", "marker": "s"},
    "dtp_pretrained": {"color": "#56B4E9", "marker": "X"},
    "dtpdrl": {"color": "#009E73", "marker": "D"},
    "ddtp_linear": {"color": "#D55E00", "marker": "^"},
    "ddtp_rhl": {"color": "#CC79A7", "marker": "v"},
    "ddtp_control": {"color": "#999999", "marker": "h"},
    "gnt": {"color": "#8B5A2B", "marker": "p"},
}
_SPARE_STYLES = (
    {"color": "#999999", "marker": "h"},
    {"color": "#F0E442", "marker": "*"},
)

_LOOK: Any = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "creditflow",
    "pdf.fonttype": 42,
}


@dataclass(frozen=True)
class Figure:
    """A figure: dataclass of its parameters, (frame, settings) -> matplotlib figure, and which frame it shows."""

    settings: type[Any]
    draw: Callable[[pd.DataFrame, Any], Canvas]
    source: str = "summary"


def rule_style(rule: str, all_rules: list[str]) -> dict[str, str]:
    """Returns colour and marker of a rule; rules without one of their own share the spare ones in order."""
    if rule in RULE_STYLES:
        return RULE_STYLES[rule]
    spare = [name for name in all_rules if name not in RULE_STYLES]
    return _SPARE_STYLES[spare.index(rule) % len(_SPARE_STYLES)]


def only(
    rows: pd.DataFrame, column: str, wanted: str | None, figure: str, what: str, *, setting: str | None = None
) -> pd.DataFrame:
    """Returns the rows of the wanted dataset or backbone (`column`), or of the only one; `setting` is what the figure calls the choice.

    Raises UserError, which names the figure and `what` it shows, if there is none, or several and no choice.
    """
    found = sorted(set(rows[column]))
    if wanted is None and len(found) > 1:
        raise UserError(f"{figure}: choose one {setting or column} of {', '.join(found)} in the figure's settings")
    chosen = rows if wanted is None else rows[rows[column] == wanted]
    if chosen.empty:
        choice = (
            f"{', '.join(found)}; choose by `{setting or column}` in the figure's settings"
            if found
            else "none; take the figure away, or have the experiment make it"
        )
        raise UserError(f"{figure}: no record of {what} for {column} {wanted or 'any'!r}; found: {choice}")
    return chosen


def write_figure(figure: Figure, frame: pd.DataFrame, settings: Any, stem: Path) -> None:
    """Draws and writes `<stem>.pdf`, `.svg` and `.png`; equal numbers give equal files."""
    with matplotlib.rc_context(_LOOK):
        canvas = figure.draw(frame, settings)
        for suffix, metadata in (("pdf", {"CreationDate": None}), ("svg", {"Date": None}), ("png", {})):
            buffer = io.BytesIO()
            canvas.savefig(buffer, format=suffix, metadata=metadata, bbox_inches="tight")
            files.write_atomically(stem.with_suffix(f".{suffix}"), buffer.getvalue())
