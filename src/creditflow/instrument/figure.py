"""The figure of an audit. One panel per epsilon, one row per model: accuracy without an attack, under each attack, and
under the worst of all attacks for each image, with 95% intervals."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Colours of attacks (Okabe and Ito's palette), by attack and gradient.
_COLOURS = {
    ("clean", ""): "#777777",
    ("pgd", "own"): "#D55E00",
    ("pgd", "exact"): "#0072B2",
    ("apgd_scaled", "own"): "#E69F00",
    ("cascade", "own"): "#CC79A7",
    ("cascade", "exact"): "#009E73",
    ("cascade", "none"): "#56B4E9",
    ("worst case", ""): "#000000",
}

_LABELS = {
    ("clean", ""): "without an attack",
    ("pgd", "own"): "PGD, own gradient",
    ("pgd", "exact"): "PGD, exact gradient",
    ("apgd_scaled", "own"): "APGD on scaled logits, own gradient",
    ("cascade", "own"): "cascade, own gradient",
    ("cascade", "exact"): "cascade, exact gradient",
    ("cascade", "none"): "cascade without gradients",
    ("worst case", ""): "worst case of all attacks",
}


def draw(accuracies: pd.DataFrame) -> Figure:
    """Returns the figure of accuracies as `judging.accuracies_of` gives them."""
    epsilons, models = list(dict.fromkeys(accuracies.epsilon)), list(dict.fromkeys(accuracies.model))
    size = (1.5 + 3.4 * len(epsilons), 1.4 + 0.75 * len(models))
    canvas = Figure(figsize=size, layout="constrained", dpi=150)
    grid = canvas.subplots(1, len(epsilons), sharey=True, squeeze=False)[0]
    for epsilon, axes in zip(epsilons, grid, strict=True):
        _panel(axes, accuracies[accuracies.epsilon == epsilon], models)
        axes.set_title(f"epsilon {epsilon:.4g}", fontsize=9)
    handles = {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    canvas.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=3, frameon=False, fontsize=7)
    return canvas


def _panel(axes: Axes, rows: pd.DataFrame, models: list[str]) -> None:
    shown = [condition for condition in _COLOURS if _of(rows, condition).any()]
    for place, condition in enumerate(shown):
        chosen, worst = rows[_of(rows, condition)], condition == ("worst case", "")
        value, low, high = (100 * chosen[name].to_numpy() for name in ("value", "low", "high"))
        shift = 0.6 * (place / max(len(shown) - 1, 1) - 0.5)
        heights = [models.index(name) + shift for name in chosen.model]
        axes.errorbar(
            value,
            heights,
            xerr=[value - low, high - value],
            linestyle="none",
            color=_COLOURS[condition],
            marker="D" if worst else "o",
            markersize=6 if worst else 4,
            linewidth=1.6 if worst else 0.9,
            capsize=2,
            label=_LABELS[condition],
        )
    axes.set_yticks(range(len(models)), models)
    axes.set_ylim(len(models) - 0.5, -0.5)
    axes.set_xlim(-3, 103)
    axes.set_xlabel("accuracy (%)")
    axes.grid(axis="x", alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _of(rows: pd.DataFrame, condition: tuple[str, str]) -> "pd.Series[bool]":
    chosen: pd.Series[bool] = (rows.attack == condition[0]) & (rows.gradient == condition[1])
    return chosen
