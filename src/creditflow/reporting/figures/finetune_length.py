"""What more fine-tuning with a rule changes. Accuracy is shown against the number of epochs: without an attack, under
an attack through the exact gradient, and under the same attack through the rule's own feedback weights
V. The first point is the pretrained network itself; only the attacker's V is new
there. Lines are means over seeds, and bands go from the least to the greatest.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from creditflow.core.errors import UserError
from creditflow.reporting.collection import chance_of
from creditflow.reporting.exact_rules import with_feedback
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._band import draw_band
from creditflow.reporting.figures.settings.finetune_length import Settings
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, without_matched
from creditflow.reporting.style import GRADIENT_TITLES, chance_line, legend_above, note


def draw(records: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns three panels, with a line for each rule and a point for each length of fine-tuning.

    A length is a dataset of its own in the experiment: the same view of the same images, fine-tuned for other epochs.
    """
    rows = only(without_matched(records), "backbone", settings.backbone, "finetune_length", "networks")
    rows = rows.assign(length=rows.dataset.map(_lengths(rows)))
    shown = _shown(rows, settings)
    lengths, rules = sorted(set(shown.length)), rule_order(set(shown.rule))
    canvas = Canvas(figsize=(10.4, 3.7), layout="constrained")
    attack = f"{display(settings.attack)}, epsilon {settings.epsilon:g}"
    titles = {name: f"{attack}\n{GRADIENT_TITLES[name]}" for name in ("exact", "feedback")}
    titles = {"none": "no attack"} | titles
    panels = canvas.subplots(1, len(titles), sharey=True)
    for axes, (gradient, title) in zip(panels, titles.items(), strict=True):
        for rule in rules:
            _line(axes, shown[(shown.gradient == gradient) & (shown.rule == rule)], lengths, rule, rules)
        axes.set_title(title)
        chance_line(axes, chance_of(shown))
        axes.set_xticks(range(len(lengths)), [f"{length}" for length in lengths])
        axes.set_xlabel("epochs of fine-tuning (not to scale)")
    panels[0].set_ylabel("accuracy (%)")
    panels[0].set_ylim(-3, 103)
    legend_above(canvas, [panels[0]], len(rules))
    n_seeds, n = shown.seed.nunique(), shown[shown.gradient == "exact"].n.max()
    spread = f"means of {n_seeds} seeds" if n_seeds > 1 else "one seed"
    place = f"{display(shown.backbone.iloc[0])}. Accuracy under attack on {n} images; {spread}."
    note(canvas, place, "For BP the two gradients are equal.")
    return canvas


def _lengths(rows: pd.DataFrame) -> dict[str, int]:
    """Returns the number of epochs by the name of the dataset; training for 0 epochs leaves no row of an epoch.

    Raises UserError if there is one length only, or if two datasets have the same.
    """
    trained = rows[(rows.attack == "clean") & rows.epoch.notna()].groupby("dataset").epoch.max()
    lengths = {dataset: int(trained.get(dataset, 0)) for dataset in sorted(set(rows.dataset))}
    if len(set(lengths.values())) < max(2, len(lengths)):
        told = ", ".join(f"{dataset} {length}" for dataset, length in lengths.items())
        raise UserError(
            f"finetune_length: the datasets do not differ in the length of fine-tuning ({told} epochs);"
            " give each its own `epochs` in `finetune.overrides`"
        )
    return lengths


def _shown(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the rows of accuracies at the end of training. Raises UserError if the attack is missing."""
    at_end = rows[rows.epoch.isna()]
    clean = at_end[(at_end.attack == "clean") & (at_end.metric == "accuracy")]
    attacked = at_end[(at_end.attack == settings.attack) & (at_end.metric == "robust_accuracy")]
    attacked = attacked[attacked.epsilon == settings.epsilon]
    for gradient in ("exact", "feedback"):
        if attacked[attacked.gradient == gradient].empty:
            raise UserError(
                f"finetune_length: no record of {settings.attack} at epsilon {settings.epsilon:g} through the gradient"
                f" {gradient}; let the experiment attack so, or choose others in the figure's settings"
            )
    return pd.concat([clean, with_feedback(attacked)], ignore_index=True)


def _line(axes: Axes, rows: pd.DataFrame, lengths: list[int], rule: str, rules: list[str]) -> None:
    spread = 100 * rows.groupby("length").value.agg(["mean", "min", "max"])
    draw_band(axes, [lengths.index(length) for length in spread.index], spread, rule, rules)


FIGURE = Figure(draw=draw, source="records")
