"""The form of the PEPITA paper's Tables 1 to 4: accuracy on natural and on adversarial images for one way to train, the
published numbers beside ours."""

import pandas as pd

from creditflow.core.errors import UserError
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order
from creditflow.reporting.table import footnote
from creditflow.reporting.tables.settings._one_population import OnePopulationSettings

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


def pepita_table(number: str, variant: str, *, source: str, published: str) -> Listing:
    """Returns the form of one of the paper's tables.

    Args:
        number: the table's id in the file of published numbers, such as "table1".
        variant: the population that it shows if the settings name none.
        source: the frames that it shows. The workflow reads this argument and the next from the text of the call.
        published: the file of published numbers.
    """

    def select(summary: pd.DataFrame, published: pd.DataFrame, settings: OnePopulationSettings) -> pd.DataFrame:
        chosen = settings.variant or variant
        rows = summary[summary.backbone == chosen]
        if rows.empty:
            raise UserError(
                f"pepita_{number}: no record of {chosen!r}; found: {', '.join(sorted(set(summary.backbone)))}"
            )
        parts = [
            _measured(rows, attack, epsilon).assign(condition=name) for (attack, epsilon), name in _CONDITIONS.items()
        ]
        parts.append(_published(published[published.table == number], rows))
        columns = ["dataset", "rule", "condition", "value", "low", "high", "n_images", "n_seeds", "interval"]
        return pd.concat([part for part in parts if len(part)], ignore_index=True)[columns]

    return Listing(select=select, show=_show, note=_note, source=source, published=published)


def _published(published: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the published numbers of our datasets and rules, with one standard deviation around each."""
    numbers = published[published.dataset.isin(set(rows.dataset)) & published.rule.isin(set(rows.rule))]
    return numbers.assign(
        condition=numbers.attack.map(_PUBLISHED),
        low=numbers.value - numbers.spread,
        high=numbers.value + numbers.spread,
    )


def _measured(rows: pd.DataFrame, attack: str, epsilon: float | None) -> pd.DataFrame:
    of_attack = rows[(rows.attack == attack) & rows.metric.isin(["accuracy", "robust_accuracy"])]
    return of_attack if epsilon is None else of_attack[(of_attack.epsilon - epsilon).abs() < 1e-12]


def _show(rows: pd.DataFrame, settings: OnePopulationSettings) -> pd.DataFrame:
    conditions = [name for name in [*_CONDITIONS.values(), *_PUBLISHED.values()] if name in set(rows.condition)]
    shown = []
    for dataset in dict.fromkeys(rows.dataset):
        for rule in rule_order(set(rows.rule)):
            cells = rows[(rows.dataset == dataset) & (rows.rule == rule)].set_index("condition")
            texts = {name: _text(cells.loc[name]) if name in cells.index else "-" for name in conditions}
            shown.append({"Dataset": display(dataset), "Rule": display(rule)} | texts)
    return pd.DataFrame(shown)


def _text(row: "pd.Series[float]") -> str:
    interval = f" ({100 * row.low:.1f} to {100 * row.high:.1f})" if row.low == row.low else ""
    return f"{100 * row.value:.1f}{interval}"


def _note(rows: pd.DataFrame) -> str:
    measured = rows[rows.n_seeds.notna()].astype({"n_images": int, "n_seeds": int})
    return f"Ours: {footnote(measured)} Published: mean of five seeds, minus and plus one standard deviation."
