"""H = Vb Vb^T, SAL's matrix learning rate, and W W^T of one hidden layer before and after training, and their spectra
(the SAL paper's Figure 3). They are those of one network: the first seed with the learning rate that was chosen, at its
best epoch."""

from typing import Any

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from torch import Tensor

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.rates import in_words
from creditflow.populations.rule import get_update_rule
from creditflow.populations.selection import chosen_rate
from creditflow.populations.spectra import effective_rank_of, singular_values
from creditflow.populations.start import draw_start
from creditflow.reporting.figure import Figure
from creditflow.reporting.figures.settings.sal_figure3 import Settings
from creditflow.reporting.names import display

_TITLES = {"v_bar": r"$\bar{V}\bar{V}^T$", "weight": "$WW^T$"}


def draw(members: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns two rows, H and W W^T, of three panels: before, after, eigenvalues."""
    member = _chosen(members)
    n_hidden = member.saved.network.n_layers - 1
    layer = settings.layer or n_hidden
    if layer > n_hidden:
        raise UserError(f"sal_figure3: {member.backbone} has {n_hidden} hidden layers, no layer {layer}")
    shown = matrices(member, layer)
    canvas = Canvas(figsize=(7.4, 4.6), layout="constrained")
    for row, (name, (before, after)) in zip(canvas.subplots(2, 3), shown.items(), strict=True):
        for axes, matrix, when in zip(row, (before, after), ("before", "after"), strict=False):
            _heat(axes, matrix @ matrix.T, f"{_TITLES[name]} {when}")
        _spectrum(row[2], {"before": before, "after": after}, _TITLES[name])
    where = f"{display(member.dataset)}, hidden layer {layer} of {display(member.backbone)}"
    rate = in_words(member.learning_rate, [each["learning_rate"] for each in member.saved.content["members"]])
    run = f"seed {member.seed}, learning rate {rate}, epoch {member.best_epoch}"
    ranks = ", ".join(f"{_rank(before):.0f} to {_rank(after):.0f}" for before, after in _all_h(member, n_hidden))
    lines = [
        f"{where}, {display(member.rule)}, {run}; colours to the 99.5th percentile.",
        f"Effective rank of H by layer, before to after: {ranks}.",
    ]
    canvas.supxlabel("\n".join(lines), fontsize=7)
    return canvas


def _all_h(member: Any, n_hidden: int) -> list[tuple[Tensor, Tensor]]:
    return [matrices(member, layer)["v_bar"] for layer in range(1, n_hidden + 1)]


def _rank(matrix: Tensor) -> float:
    """Returns the effective rank of a matrix times its transpose."""
    return float(effective_rank_of(singular_values(matrix).square()))


def matrices(member: Any, layer: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns Vb (d, e) and W (d, d below) of a hidden layer before and after training, in float64."""
    training = member.saved.training
    rule_settings = parse(plugins.settings_class("update_rule", member.rule), training.rule, "settings of the rule")
    parameters, feedback = draw_start(
        get_update_rule(member.rule), rule_settings, member.saved.network, training, member.seed
    )
    before = {"v_bar": feedback[f"v_bar{layer}"], "weight": parameters[f"weight{layer}"]}
    after = {"v_bar": member.saved.feedback[f"v_bar{layer}"], "weight": member.saved.parameters[f"weight{layer}"]}
    return {name: (before[name], after[name][member["index"]].double()) for name in before}


def _chosen(members: pd.DataFrame) -> Any:
    first = members.iloc[0]
    rate = chosen_rate(first.saved, first.backbone)
    return members[members.learning_rate == rate].sort_values("seed").iloc[0]


def _heat(axes: Axes, matrix: Tensor, title: str) -> None:
    bound = float(torch.quantile(matrix.abs(), 0.995)) or 1.0
    image = axes.imshow(matrix.numpy(), cmap="PuOr", vmin=-bound, vmax=bound, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=6)


def _spectrum(axes: Axes, matrices_by_time: dict[str, Tensor], title: str) -> None:
    for (when, matrix), style in zip(matrices_by_time.items(), (("#999999", "--"), ("#D55E00", "-")), strict=True):
        values = singular_values(matrix).square()
        shares = values / values[0]
        label = f"{when}, effective rank {_rank(matrix):.1f}"
        axes.plot(range(1, len(shares) + 1), shares.numpy(), color=style[0], linestyle=style[1], label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-6, 2)
    axes.set_xlabel("eigenvalue")
    axes.set_ylabel("share of the largest")
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=6)


FIGURE = Figure(draw=draw, source="populations")
