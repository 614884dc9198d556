"""The form of the PEPITA paper's Tables 1 to 4: accuracy on natural and on adversarial images for one way to train, the published
numbers beside ours."""

from dataclasses import dataclass

import pandas as pd

from creditflow.core.errors import UserError
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, rule_order
from creditflow.reporting.table import footnote

#: Our condition that stands beside the published one. The paper states an epsilon of 0.3; its code has 0.1.
_CONDITIONS = {
    ("clean", None): "natural",
    ("fgsm_mse", 0.1): "FGSM, code (0.1)",
    ("pgd_mse_code", 0.1): "PGD, code (0.1)",
    ("pgd_mse", 0.1): "PGD in [0, 1] (0.1)",
    ("pgd", 0.1): "PGD, cross-entropy (0.1)",
    ("pgd_mse", 0.3): "PGD, paper (0.3)",
}
_PUBLISHED = {"clean": "published natural", "fgsm": "published FGSM", "pgd": "published PGD"}


@dataclass(frozen=True)
class Settings:
    """variant: the population to show; the table's own if left out. published: numbers of this file in config/published stand beside."""

    variant: str | None = None
    published: str | None = None


def pepita_table(number: str, variant: str, *, source: str, published: str) -> Listing:
    """Returns the paper's table of this number. The workflow reads `source` and `published`, its numbers' file, from the call's text."""

    def select(summary: pd.DataFrame, published: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        chosen = settings.variant or variant
        rows = summary[summary.backbone == chosen]
        if rows.empty:
            raise UserError(
                f"pepita_{number}: no record of {chosen!r}; found: {', '.join(sorted(set(summary.backbone)))}"
            )
        parts = [
            _measured(rows, attack, epsilon).assign(condition=name) for (attack, epsilon), name in _CONDITIONS.items()
        ]
        theirs = published[
            (published.table == number)
            & published.dataset.isin(set(rows.dataset))
            & published.rule.isin(set(rows.rule))
        ]
        parts.append(
            theirs.assign(
                condition=theirs.attack.map(_PUBLISHED),
                low=theirs.value - theirs.spread,
                high=theirs.value + theirs.spread,
            )
        )
        columns = ["dataset", "rule", "condition", "value", "low", "high", "n_images", "n_seeds", "interval"]
        return pd.concat([part for part in parts if len(part)], ignore_index=True)[columns]

    return Listing(settings=Settings, select=select, show=_show, note=_note, source=source, published=published)


def _measured(rows: pd.DataFrame, attack: str, epsilon: float | None) -> pd.DataFrame:
    of_attack = rows[(rows.attack == attack) & rows.metric.isin(["accuracy", "robust_accuracy"])]
    return of_attack if epsilon is None else of_attack[(of_attack.epsilon - epsilon).abs() < 1e-12]


def _show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    conditions = [name for name in [*_CONDITIONS.values(), *_PUBLISHED.values()] if name in set(rows.condition)]
    shown = []
    for dataset in dict.fromkeys(rows.dataset):
        for rule in rule_order(set(rows.rule)):
            its = rows[(rows.dataset == dataset) & (rows.rule == rule)].set_index("condition")
            texts = {name: _text(its.loc[name]) if name in its.index else "-" for name in conditions}
            shown.append({"Dataset": display(dataset), "Rule": display(rule)} | texts)
    return pd.DataFrame(shown)


def _text(row: "pd.Series[float]") -> str:
    interval = f" ({100 * row.low:.1f} to {100 * row.high:.1f})" if row.low == row.low else ""
    return f"{100 * row.value:.1f}{interval}"


def _note(rows: pd.DataFrame) -> str:
    ours = rows[rows.n_seeds.notna()].astype({"n_images": int, "n_seeds": int})
    return f"Ours: {footnote(ours)} Published: mean of five seeds, minus and plus one standard deviation."
