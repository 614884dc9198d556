"""What the sign-symmetry paper reports (its Tables 1, 3 and 4), in percent, with the uncertainty that its values betray: they
are multiples of 1/32, so each rests on 32 images, and has the 95% interval of a binomial of that size. A star marks a rule
that differs from BP beyond it (Fisher's exact test, p < 0.05, not adjusted for the number of comparisons)."""

from typing import Any

import pandas as pd
from scipy.stats import fisher_exact

from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, rule_order
from creditflow.settings import NoSettings

_ROW = ["table", "attack", "backbone", "dataset"]


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns a row per table, backbone and dataset, a column per rule."""
    shown = []
    for names, group in rows.groupby(_ROW, sort=False):
        cells = {row.rule: row for row in group.itertuples()}
        texts = {display(rule): _cell(cells[rule], cells["bp"]) for rule in rule_order(set(rows.rule)) if rule in cells}
        shown.append(dict(zip(("Table", "Attack", "Backbone", "Dataset"), (display(str(name)) for name in names), strict=True)) | texts)
    return pd.DataFrame(shown).fillna("-")


def _cell(row: Any, reference: Any) -> str:
    if row.n != row.n:
        return f"{100 * row.value:.1f}"
    counts = [[round(one.value * one.n), round((1 - one.value) * one.n)] for one in (row, reference)]
    star = "*" if fisher_exact(counts).pvalue < 0.05 else ""
    return f"{100 * row.value:.1f}{star} ({100 * row.low:.0f} to {100 * row.high:.0f})"


def note(rows: pd.DataFrame) -> str:
    """Says how many images were inferred."""
    sizes = ", ".join(f"{display(str(table))}: {n:.0f}" for table, n in rows.groupby("table").n.first().items())
    return f"Images inferred: {sizes}."


TABLE = Listing(settings=NoSettings, select=lambda frame, settings: frame, show=show, note=note, source="published")
