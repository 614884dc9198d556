"""Whether SAL's descending stream helps the network at once (the SAL paper's section 2.3). After one cycle up and down,
training images are sent up again with h + s Vb u in place of each hidden activity h, for several scales s. The left
panel shows the mean loss after this over that before. Below 1, the signal has lowered the loss. The middle panel shows
the share of images whose loss falls. The right panel shows the cosine of Vb u and minus the loss gradient by h, which
the paper says are equal. It is a mean over hidden layers and images. Lines are means over seeds, and bands go from the
least to the greatest of them."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator

from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_by_epoch
from creditflow.reporting.figures.settings.sal_modulation import Settings
from creditflow.reporting.names import display
from creditflow.reporting.style import LINES, End, label_ends, note

_LOSS, _HELPS, _COSINE = "modulation_loss_scale", "modulation_helps_scale", "modulation_cosine"


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns three panels: the loss over that before, the share of images that it helps, and the cosine."""
    rows = records[records.epoch.notna() & (records.rule == settings.rule)]
    rows = only(rows, "dataset", settings.dataset, "sal_modulation", "training")
    rows = only(rows, "backbone", settings.variant, "sal_modulation", "training", setting="variant")
    rows = rows[rows.metric.str.startswith("modulation_")]
    scales = sorted({float(name.removeprefix(_LOSS)) for name in rows.metric if name.startswith(_LOSS)})
    if not scales:
        raise UserError(
            f"sal_modulation: no modulation of {settings.rule!r}; set `modulation` in the population's settings of the"
            " rule"
        )
    canvas = Canvas(figsize=(10.4, 3.2), layout="constrained")
    losses, helps, cosine = canvas.subplots(1, 3)
    ends: dict[Axes, list[End]] = {losses: [], helps: []}
    for index, scale in enumerate(scales):
        for axes, metric in ((losses, _LOSS), (helps, _HELPS)):
            ends[axes].append(_line(axes, rows, f"{metric}{scale:g}", f"s = {scale:g}", index))
    _line(cosine, rows, _COSINE, "", 0)
    _label(losses, helps, cosine)
    for axes, of_axes in ends.items():
        label_ends(axes, of_axes, 2.2)
    where = f"{display(rows.backbone.iloc[0])} on {display(rows.dataset.iloc[0])}, {display(settings.rule)}"
    note(canvas, f"{where}; {int(rows.n.max())} training images, {rows.seed.nunique()} seeds.")
    return canvas


def _line(axes: Axes, rows: pd.DataFrame, metric: str, label: str, index: int) -> End:
    color, dashes, _ = LINES[index % len(LINES)]
    # Each line is thinner than the one below it, so that lines that coincide are all seen.
    thickness = max(3.2 * 0.7**index, 0.9)
    return draw_by_epoch(axes, rows[rows.metric == metric], label, color, linestyle=dashes, linewidth=thickness)


def _label(losses: Axes, helps: Axes, cosine: Axes) -> None:
    losses.axhline(1, color="#999999", linewidth=0.8)
    losses.set(ylabel="loss after over loss before", yscale="log")
    losses.yaxis.set_major_formatter("{x:g}")
    losses.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    losses.yaxis.set_minor_formatter("{x:g}")
    losses.tick_params(which="minor", labelsize=7)
    helps.set(ylabel="share of images whose loss falls", ylim=(0, 1.02))
    cosine.axhline(0, color="#999999", linewidth=0.8)
    cosine.set(ylabel="cosine to minus the gradient", ylim=(min(0, *cosine.get_ylim()), 1.02))
    for axes in (losses, helps, cosine):
        axes.set_xlabel("epoch")


FIGURE = Figure(draw=draw, source="records")
