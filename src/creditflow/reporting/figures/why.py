"""Why an attack through some gradient fails, for one network. First panel: how far the attacker's gradient agrees with
the exact gradient at the image (1 is full agreement, 0 is none). Second panel: the network's loss along the attacker's
steps. Third panel: its accuracy after a number of steps. Last panel: its accuracy for several sizes of a step."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.collection import chance_of
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures.settings.why import Settings
from creditflow.reporting.names import display, span
from creditflow.reporting.style import BAND, GRADIENT_WORDS, GREY, LINES, NOTE, WIDTH, chance_line, legend_above, note

_AGREEMENT = {"gradient_cosine": "cosine", "gradient_sign_agreement": "share of equal signs"}


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the figure: four panels, and one line for each gradient that an attacker used."""
    rows = records[records.attack == "why"]
    if rows.empty:
        raise UserError("why: the experiment did not measure gradients; add the key `why` and run it again")
    rows = only(rows, "rule", settings.rule, "why", "measured gradients")
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        rows = only(rows, column, wanted, "why", "measured gradients")
    gradients = sorted(set(rows.gradient), key=lambda gradient: (gradient != "exact", gradient))
    canvas = Canvas(figsize=(12, 3.6), layout="constrained")
    panels = canvas.subplots(1, 4, width_ratios=[1.1, 1, 1, 1])
    _bars(panels[0], rows, gradients)
    curves = (
        ("loss_after_steps", 1.0, "steps of the attacker", "loss of the network (cross-entropy)"),
        ("accuracy_after_steps", 100.0, "steps of the attacker", "accuracy (%)"),
        ("accuracy_by_step_divisor", 100.0, "size of a step (share of epsilon)", "accuracy (%)"),
    )
    for axes, (metric, factor, across, up) in zip(panels[1:], curves, strict=True):
        _curves(axes, rows[rows.metric == metric], gradients, factor)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
    panels[1].set_xscale("symlog", linthresh=1)
    panels[2].set_xscale("symlog", linthresh=1)
    panels[3].set_xscale("log")
    for axes in panels[1:]:
        axes.xaxis.set_major_formatter("{x:g}")
    for axes in panels[2:]:
        axes.set_ylim(-3, 103)
        chance_line(axes, chance_of(rows))
    legend_above(canvas, [panels[1]], 4)
    note(canvas, _sample(rows))
    return canvas


def _sample(rows: pd.DataFrame) -> str:
    place = ", ".join(display(rows[column].iloc[0]) for column in ("backbone", "dataset", "rule"))
    n_seeds, epsilons = rows.seed.nunique(), sorted(set(rows.epsilon.dropna()))
    epsilon = ", ".join(f"{value:g}" for value in epsilons)
    spread = "means over seeds, and bands from the least to the greatest" if n_seeds > 1 else "one seed"
    sample = f"n = {span(rows.n)} images x {n_seeds} seed{'s' * (n_seeds > 1)}"
    return f"{place}; epsilon {epsilon} (L-infinity); {sample}; {spread}."


def _name(gradient: str) -> str:
    return GRADIENT_WORDS.get(gradient) or display(gradient)


def _style(gradient: str, gradients: Sequence[str]) -> tuple[str, str, str]:
    return LINES[gradients.index(gradient) % len(LINES)]


def _bars(axes: Axes, rows: pd.DataFrame, gradients: Sequence[str]) -> None:
    """Draws two bars for each gradient: the cosine is filled, the agreement of signs is hatched."""
    height = 0.38
    for place, gradient in enumerate(gradients):
        color, _, _ = _style(gradient, gradients)
        for shift, metric in zip((-height / 2, height / 2), _AGREEMENT, strict=True):
            value = rows[(rows.gradient == gradient) & (rows.metric == metric)].value.mean()
            hatched = metric == "gradient_sign_agreement"
            axes.barh(
                place + shift,
                value,
                height,
                color="white" if hatched else color,
                edgecolor=color,
                hatch="////" if hatched else None,
            )
            axes.text(max(value, 0) + 0.02, place + shift, f"{value:.2f}", va="center", fontsize=NOTE)
    axes.set_yticks(range(len(gradients)), [_name(gradient) for gradient in gradients])
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, axes.get_xlim()[0]), 1.15)
    axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xlabel("agreement with the exact gradient\nfilled: cosine; hatched: share of\nequal signs (chance: 0.5)")


def _curves(axes: Axes, rows: pd.DataFrame, gradients: Sequence[str], factor: float) -> None:
    by_size = bool((rows.metric == "accuracy_by_step_divisor").any())
    for gradient in gradients:
        spread = rows[rows.gradient == gradient].groupby("at").value.agg(["mean", "min", "max"]) * factor
        across = [1 / place if by_size else float(place) for place in spread.index]
        color, line, marker = _style(gradient, gradients)
        axes.plot(
            across,
            spread["mean"],
            color=color,
            linestyle=line,
            marker=marker,
            markersize=4,
            linewidth=WIDTH,
            label=_name(gradient),
        )
        axes.fill_between(across, spread["min"], spread["max"], color=color, alpha=BAND, linewidth=0)


FIGURE = Figure(draw=draw, source="records")
