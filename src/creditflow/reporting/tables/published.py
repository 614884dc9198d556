"""What is published, in percent. Some papers state how many images a number rests on. Others show it, because all
values of a table are multiples of 1/n. Then the 95% interval of a binomial of that size stands beside the number. A
star marks a rule that differs significantly from BP (Fisher's exact test, p < 0.05, not adjusted for the number of
comparisons).
"""

from typing import Any

import pandas as pd
from scipy.stats import fisher_exact

from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.published import sample_sizes, shares
from creditflow.reporting.rules import rule_order
from creditflow.reporting.tables.settings.published import Settings

_ROW = {"table": "Table", "metric": "Metric", "attack": "Attack", "backbone": "Backbone", "dataset": "Dataset"}


def select(published: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns all numbers that are percentages."""
    return shares(published)


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per table, backbone and dataset, a column per rule."""
    shown = []
    for names, group in rows.groupby(list(_ROW), sort=False):
        cells = {str(row.rule): row for row in group.itertuples()}
        texts = {
            display(rule): _cell(cells[rule], cells.get("bp")) for rule in rule_order(set(rows.rule)) if rule in cells
        }
        shown.append(dict(zip(_ROW.values(), (display(str(name)) for name in names), strict=True)) | texts)
    return pd.DataFrame(shown).fillna("-")


def _cell(row: Any, reference: Any) -> str:
    if row.n != row.n:
        return f"{100 * row.value:.1f}"
    counts = [[round(cell.value * cell.n), round((1 - cell.value) * cell.n)] for cell in (row, reference or row)]
    star = "*" if fisher_exact(counts).pvalue < 0.05 else ""
    return f"{100 * row.value:.1f}{star} ({100 * row.low:.{_digits(row.n)}f} to {100 * row.high:.{_digits(row.n)}f})"


def _digits(n: float) -> int:
    """Returns the digits after the point: with tens of images a tenth of a percent means nothing."""
    return 0 if n < 1000 else 1


def note(rows: pd.DataFrame) -> str:
    """Says whose numbers these are, and on how many images they rest."""
    return f"Source: {display(rows.paper.iloc[0])}. {sample_sizes(rows)}"


TABLE = Listing(select=select, show=show, note=note, source="published")
