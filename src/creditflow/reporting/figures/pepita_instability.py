"""How PEPITA's feedback drives itself, by epoch. The panels show the norm of W_1 F divided by its first value, and the
median gap between the two largest logits. They also show the share of test images at which the gradient of the
adversary's loss is exactly zero (full lines: computed in float32; dashed: in float64). There is a line for each seed
and a colour for each learning rate; a line ends where its network diverged. Dotted lines mark the norm at the start,
and gaps of 52 and 373. From a gap of 52 on, the gradient of the squared error of probabilities is exactly zero in
float32, and from 373 on in float64.
"""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.pepita_instability import Settings
from creditflow.reporting.names import display
from creditflow.reporting.style import GREY, NOTE, End, label_ends

#: The gap between the label's logit and the others from which sum_c (p_c - y_c)^2 has a gradient of exactly zero.
ZERO_FROM = {"float32": 52, "float64": 373}

#: Height of a panel in inches, about.
_HEIGHT = 1.7

#: What each panel shows, with the style of the lines.
_PANELS: dict[str, dict[str, str]] = {
    r"norm of $W_1 F$ over its start": {"loop_growth": "-"},
    "median gap of the two largest logits": {"median_gap": "-"},
    "gradients that are exactly zero (%)": {"zero_gradients_float32": "-", "zero_gradients_float64": "--"},
}


def draw(members: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns a row of three panels for each variant."""
    rates = sorted(set(members.learning_rate))
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.88, len(rates)))
    colors = dict(zip(rates, map(mpl.colors.to_hex, shades), strict=True))
    n_rows = len(settings.variants)
    canvas = Canvas(figsize=(9.2, 0.9 + 2.5 * n_rows), layout="constrained")
    sentences = []
    grid = canvas.subplots(n_rows, 3, squeeze=False)
    for axes, (label, variant) in zip(grid, settings.variants.items(), strict=True):
        rows = members[members.backbone == variant]
        histories = _histories(rows, variant)
        for panel, (title, lines) in zip(axes, _PANELS.items(), strict=True):
            _draw_panel(panel, histories, lines, colors)
            panel.set_title(title, fontsize=9)
            panel.set_xlabel("epoch")
        _name_lines(axes[0], histories, colors)
        _mark_thresholds(axes[1])
        axes[0].set_ylabel(label)
        sentences.append(f"{label[:1].upper()}{label[1:]}: {_reached(histories)}.")
    handles = [Line2D([], [], color=colors[rate], label=f"{rate:g}") for rate in rates]
    canvas.legend(handles=handles, title="learning rate", loc="outside upper center", ncols=len(rates), frameon=False)
    canvas.supxlabel("\n".join([_place(members), *sentences]), fontsize=NOTE)
    return canvas


def _histories(rows: pd.DataFrame, variant: str) -> dict[tuple[float, int], pd.DataFrame]:
    """Returns the numbers by epoch of each network, by learning rate and seed.

    Raises UserError if they were not measured.
    """
    histories: dict[tuple[float, int], pd.DataFrame] = {}
    for rate, seed, epochs in zip(rows.learning_rate, rows.seed, rows.history, strict=True):
        history = pd.DataFrame(epochs)
        if len(history) and "median_gap" not in history:
            raise UserError(
                f"pepita_instability: {variant} was trained without `stability_images`; set them in the population's"
                " settings and run the experiment again"
            )
        histories[float(rate), int(seed)] = history
    return histories


def _draw_panel(
    panel: Axes,
    histories: Mapping[tuple[float, int], pd.DataFrame],
    lines: Mapping[str, str],
    colors: Mapping[float, str],
) -> None:
    shares = "zero_gradients_float32" in lines
    for (rate, _), history in sorted(histories.items(), key=lambda item: item[0]):
        for name, style in lines.items():
            if name in history:
                values = history[name] * (100 if shares else 1)
                panel.plot(history.epoch, values, style, color=colors[rate], linewidth=1.1, marker=".", markersize=3)
    low, high = panel.dataLim.intervaly
    if shares:
        panel.set_ylim(-3, 103)
    elif high > 10 * low or "median_gap" in lines:  # a shorter logarithmic axis has hardly a number on it
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))


def _name_lines(panel: Axes, histories: Mapping[tuple[float, int], pd.DataFrame], colors: Mapping[float, str]) -> None:
    """Writes each learning rate beside the end of its first line, so that no one needs to tell colours apart, and marks
    where nothing has grown."""
    panel.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
    ends = []
    for rate in sorted({rate for rate, _ in histories}):
        lasts = [
            history.iloc[-1] for (other, _), history in sorted(histories.items()) if other == rate and len(history)
        ]
        if lasts and "loop_growth" in lasts[0]:
            ends.append(End(float(lasts[0].epoch), float(lasts[0].loop_growth), f"{rate:g}", colors[rate]))
    label_ends(panel, ends, _HEIGHT)


def _mark_thresholds(panel: Axes) -> None:
    for name, gap in ZERO_FROM.items():
        panel.axhline(gap, color=GREY, linewidth=0.8, linestyle=":")
        panel.text(1, gap, f" {name}: {gap}", transform=panel.get_yaxis_transform(), fontsize=6, va="center")


def _reached(histories: Mapping[tuple[float, int], pd.DataFrame]) -> str:
    """Returns in words at which learning rates the median gap reached the thresholds, in all seeds and at any epoch."""
    rates = sorted({rate for rate, _ in histories})
    parts = []
    for name, gap in ZERO_FROM.items():
        reached = [
            f"{rate:g}"
            for rate in rates
            if all(len(h) and h.median_gap.max() >= gap for (other, _), h in histories.items() if other == rate)
        ]
        parts.append(f"{gap} ({name}) at {_listed(reached)}")
    return f"in all seeds the median gap reaches {' and '.join(parts)}"


def _listed(rates: list[str]) -> str:
    return f"learning rate{'s' * (len(rates) > 1)} {', '.join(rates)}" if rates else "no learning rate"


def _place(members: pd.DataFrame) -> str:
    """Returns the dataset, the rule and how many images and networks the figure shows."""
    first = members.iloc[0]
    n_images = first.saved.content["measured_images"].get("median_gap", 0)
    return (
        f"{display(first.dataset)}, {display(first.rule)}, n = {n_images} test images, {members.seed.nunique()} seeds."
    )


FIGURE = Figure(draw=draw, source="populations")
