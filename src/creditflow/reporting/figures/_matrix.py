"""Heat maps of accuracies: networks in rows, attackers in groups of columns, the numbers in the cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.given import GIVEN_MODELS
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order
from creditflow.reporting.style import GREY, NOTE

#: From light (fooled) to dark (right): one hue whose lightness falls evenly, so that print and colour-blind readers
#: see the same order.
_MAP = "Blues"

#: Accuracy in percent from which a cell is so dark that its number is white.
_DARK = 65


@dataclass(frozen=True)
class Group:
    """Neighbouring columns under a common heading: conditions, with the label of each."""

    heading: str
    columns: Mapping[str, str]


def draw_matrix(rows: pd.DataFrame, groups: Sequence[Group], title: str, note: str) -> Canvas:
    """Returns the heat map of one dataset and backbone.

    Args:
        rows: rows of `accuracy_matrix`.
        groups: the columns from left to right; groups without columns are left out.
        title: a whole sentence above the map.
        note: what the numbers rest on, below it.
    """
    groups = [group for group in groups if group.columns]
    rules = rule_order(set(rows.rule))
    widths = [len(group.columns) for group in groups]
    canvas = Canvas(figsize=(2.2 + 0.95 * sum(widths), 1.75 + 0.42 * len(rules)), layout="constrained")
    values = 100 * rows.pivot(index="rule", columns="condition", values="value").loc[rules]
    panels = canvas.subplots(1, len(groups), width_ratios=widths, squeeze=False)[0]
    for group, axes in zip(groups, panels, strict=True):
        _panel(axes, values[list(group.columns)], group)
        axes.set_yticks(range(len(rules)), [])
    panels[0].set_yticks(range(len(rules)), [display(rule) for rule in rules], fontsize=10)
    panels[0].set_ylabel("model" if set(rows.backbone) == {GIVEN_MODELS} else "network trained with", fontsize=9)
    canvas.suptitle(_even_lines(title, int(11 * canvas.get_figwidth())), fontsize=11, fontweight="bold")
    canvas.supxlabel(_even_lines(note, int(18 * canvas.get_figwidth())), fontsize=NOTE)
    return canvas


def _even_lines(text: str, width: int) -> str:
    """Returns a text in as few lines as the width allows, which are about equally long."""
    n_lines = ceil(len(text) / width)
    return fill(text, min(width, len(text) // n_lines + 8))


def _panel(axes: Axes, values: pd.DataFrame, group: Group) -> None:
    axes.imshow(values, cmap=_MAP, vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values.to_numpy()):
        text = "-" if np.isnan(value) else f"{value:.0f}"
        colour = "white" if value > _DARK else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=12, color=colour)
    # The headings of all groups stand at the same height if all labels have two lines.
    labels = [label if "\n" in label else f"\n{label}" for label in group.columns.values()]
    axes.set_xticks(range(len(labels)), labels, fontsize=9)
    axes.set_title(group.heading, fontsize=9)
    axes.tick_params(top=False, bottom=False, left=False, labeltop=True, labelbottom=False)
    axes.grid(False)
    # Lines between the cells: two neighbours of the same accuracy are still two cells.
    axes.set_xticks(np.arange(0.5, values.shape[1] - 1), minor=True)
    axes.set_yticks(np.arange(0.5, values.shape[0] - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=2, alpha=1)
    axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)
