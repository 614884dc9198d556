"""How all figures look: the one place of fonts, sizes, colours, lines, axes, labels and notes.

Colours of learning rules are declared in the rules' own files (`reporting/rules.py`), so that a rule has the same
colour in every figure. All colours are those of Okabe and Ito's palette, which colour-blind readers can tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

#: Settings of matplotlib for every figure.
LOOK: Any = {
    "figure.dpi": 150,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.xmargin": 0.02,
    "grid.alpha": 0.3,
    "svg.hashsalt": "creditflow",
    "pdf.fonttype": 42,
}

BLACK, GREY, LIGHT = "#000000", "#595959", "#BBBBBB"
BLUE, SKY, VERMILION, ORANGE = "#0072B2", "#56B4E9", "#D55E00", "#E69F00"
GREEN, PURPLE, YELLOW, BROWN = "#009E73", "#CC79A7", "#F0E442", "#8B5A2B"

#: Frames of images that a network gets right, and of those that it gets wrong.
RIGHT, WRONG = GREEN, VERMILION

#: Lines that are no rules: a colour, a dash and a marker of its own for each, so that they differ in grey print, too.
LINES = (
    (BLACK, "-", "o"),
    (BLUE, "--", "s"),
    (VERMILION, "-", "^"),
    (GREEN, "-.", "D"),
    (PURPLE, ":", "v"),
    (ORANGE, "--", "P"),
    (SKY, "-.", "X"),
)

#: Sizes of small text, in points: labels in a panel, and the note below a figure.
SMALL, NOTE = 7.5, 7

#: Opacity of bands, and width of lines.
BAND, WIDTH = 0.15, 1.4

#: Epsilons whose numbers have room beside each other; more of them are turned.
_UPRIGHT = 5

#: What the attacker's gradient is, as the title of a panel and as a few words.
GRADIENT_TITLES = {
    "exact": "attacker uses the exact gradient",
    "own": "attacker uses the model's own gradient",
    "feedback": "attacker uses the rule's own feedback weights",
    "none": "attacker uses no gradient",
}
GRADIENT_WORDS = {
    "exact": "exact gradient",
    "own": "own gradient",
    "feedback": "own feedback weights",
    "none": "no gradient",
}


#: The line from a label to what it names; it begins at the left of the label.
_LEADER = {"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 2, "shrinkB": 2, "relpos": (0, 0.5)}


@dataclass(frozen=True)
class End:
    """The end of a line, which is labelled: its place in the data's units, its text and its colour."""

    x: float
    y: float
    text: str
    color: str


def epsilon_axis(axes: Axes, epsilons: Sequence[float], norm: str = "L-infinity", *, short: bool = False) -> None:
    """Spaces epsilons as they are: on a logarithmic axis that is linear below the smallest positive one.

    Args:
        axes: the panel.
        epsilons: the sizes of perturbations that it shows.
        norm: their norm, in words.
        short: whether the panel is narrow, so that the label must be short and the numbers are turned.
    """
    positive = [epsilon for epsilon in epsilons if epsilon > 0]
    if len(positive) > 1:
        axes.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
        axes.set_xlim(min(epsilons) - 0.1 * min(positive), 1.1 * max(positive))
    axes.set_xticks(list(epsilons), [f"{epsilon:g}" for epsilon in epsilons])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(f"epsilon ({norm})" if short else f"epsilon ({norm}, pixels in [0, 1]; logarithmic scale)")
    if short or len(epsilons) > _UPRIGHT:
        axes.tick_params("x", labelrotation=60)


def chance_line(axes: Axes, chance: float) -> None:
    """Draws the accuracy (a share) of the best constant answer, with its label; nothing where it is not known."""
    if isfinite(chance):
        text = f"chance: {100 * chance:.0f}%"
        _named_line(axes, 100 * chance, text, linestyle=(0, (1, 2)), zorder=1, label="_chance")


def reference_line(axes: Axes, height: float, text: str) -> None:
    """Draws a horizontal line at a height with a meaning, and says above it, at the left, what it means."""
    _named_line(axes, height, text, linestyle="--", zorder=0, label="_reference")


def _named_line(axes: Axes, height: float, text: str, **line: Any) -> None:
    axes.axhline(height, color=GREY, linewidth=0.9, **line)
    axes.annotate(
        text,
        (0.01, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1.5),
        textcoords="offset points",
        fontsize=NOTE,
        color=GREY,
    )


def label_ends(axes: Axes, ends: Sequence[End], height: float) -> None:
    """Writes labels at the right of a panel, at the height of the lines' ends, moved apart where they would touch.

    Call it when the scale and the limits of the panel are final.

    Args:
        axes: the panel.
        ends: the ends of its lines.
        height: the height of the panel in inches, about.
    """
    scale = axes.yaxis.get_transform()
    low, high = scale.transform(list(axes.get_ylim()))
    shares = [(float(scale.transform([end.y])[0]) - low) / (high - low) for end in ends]
    places = apart(shares, 1.3 * SMALL / 72 / height)
    for end, place in zip(ends, places, strict=True):
        axes.annotate(
            end.text,
            (end.x, end.y),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=SMALL,
            color=end.color,
            annotation_clip=False,
            arrowprops=_LEADER | {"color": end.color},
        )


def apart(places: Sequence[float], step: float, top: float = 1.0) -> list[float]:
    """Returns places in the same order, at least a step from each other: pushed up, but not beyond the top."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved, lowest = list(places), float("-inf")
    for index in order:
        moved[index] = max(moved[index], lowest)
        lowest = moved[index] + step
    highest = top
    for index in reversed(order):
        moved[index] = min(moved[index], highest)
        highest = moved[index] - step
    return moved


def note(canvas: Canvas, *sentences: str) -> None:
    """Writes what a figure shows and rests on below it, in lines that fit its width."""
    text = " ".join(sentence for sentence in sentences if sentence)
    text = text if text.startswith("n = ") else text[:1].upper() + text[1:]
    canvas.supxlabel(fill(text, int(21 * canvas.get_figwidth())), fontsize=NOTE)


def legend_above(canvas: Canvas, panels: Sequence[Axes], columns: int, first: Sequence[str] = ()) -> None:
    """Draws one legend for several panels above them; each label stands once.

    Args:
        canvas: the figure.
        panels: the panels, whose lines have labels.
        columns: columns of the legend.
        first: beginnings of those labels that come before the others, in their order.
    """
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))

    def place(label: str) -> int:
        return next((index for index, start in enumerate(first) if label.startswith(start)), len(first))

    labels = sorted(handles, key=place)
    canvas.legend(
        [handles[label] for label in labels], labels, loc="outside upper center", ncols=columns, frameon=False
    )


def rule_line(style: Mapping[str, str], label: str) -> dict[str, Any]:
    """Returns matplotlib's arguments of a rule's line."""
    return {"label": label, "markersize": 4, "linewidth": WIDTH} | dict(style)


#: Where the label of a point may stand, in points from it: near places first, and the right side before the left.
_DIRECTIONS = ((1, 0.6), (1, -0.6), (-1, 0.6), (-1, -0.6), (0, 1), (0, -1), (1.3, 0), (-1.3, 0))
_RADII = (7.0, 13.0, 20.0, 28.0)


def label_points(axes: Axes, points: Sequence[End]) -> None:
    """Writes a label beside each point, where it covers neither a point nor another label, as far as there is room.

    Call it last: it lays the figure out to know where points are.
    """
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]
    per_point = axes.figure.dpi / 72
    pixels = [tuple(axes.transData.transform((point.x, point.y))) for point in points]
    taken = [(x - 4 * per_point, y - 4 * per_point, x + 4 * per_point, y + 4 * per_point) for x, y in pixels]
    for (x, y), point in zip(pixels, points, strict=True):
        best = min(
            ((dx * radius, dy * radius) for radius in _RADII for dx, dy in _DIRECTIONS),
            key=lambda shift: (
                _overlap(_box(x, y, shift, point.text, per_point), [*taken, _outside(axes)]),
                abs(shift[0]) + abs(shift[1]),
            ),
        )
        taken.append(_box(x, y, best, point.text, per_point))
        far = abs(best[0]) + abs(best[1]) > 2 * _RADII[0]
        axes.annotate(
            point.text,
            (point.x, point.y),
            xytext=best,
            textcoords="offset points",
            ha="left" if best[0] > 0 else "right" if best[0] < 0 else "center",
            va="center",
            fontsize=SMALL,
            color=point.color,
            arrowprops=_LEADER | {"color": point.color, "relpos": (0.5, 0.5)} if far else None,
        )


_Box = tuple[float, float, float, float]


def _box(x: float, y: float, shift: tuple[float, float], text: str, per_point: float) -> _Box:
    """Returns the rectangle in pixels that a label covers, about."""
    width, height = 0.62 * SMALL * len(text) * per_point, 1.1 * SMALL * per_point
    middle = y + shift[1] * per_point
    left = x + shift[0] * per_point - (width if shift[0] < 0 else 0.0 if shift[0] > 0 else width / 2)
    return left, middle - height / 2, left + width, middle + height / 2


def _outside(axes: Axes) -> _Box:
    """Returns the band below a panel, in pixels: labels there would cover the numbers of the axis."""
    panel = axes.get_window_extent()
    return panel.x0 - panel.width, panel.y0 - panel.height, panel.x1 + panel.width, panel.y0


def _overlap(box: _Box, others: Sequence[_Box]) -> float:
    """Returns the area that a rectangle shares with others."""
    shared = 0.0
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        shared += max(0.0, width) * max(0.0, height)
    return shared
