"""Published numbers beside ours, in percent. The interval of a published number is the binomial one of the images that
it rests on, and knows nothing of other seeds; ours is over images and seeds. Ours lies inside or outside the published
interval, and the difference is ours less the published number, in points."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from creditflow.core.errors import UserError, suggestion
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.published import as_accuracy, sample_sizes, shares
from creditflow.reporting.table import at_epsilon, footnote
from creditflow.reporting.tables.settings.compare import Settings

#: What identifies a number here and there; `ours_on` is our dataset.
_KEYS = ["backbone", "ours_on", "rule", "attack", "metric"]

_HEADINGS = {
    "table": "Table",
    "metric": "Metric",
    "backbone": "Backbone",
    "dataset": "Dataset",
    "ours_on": "Ours on",
    "rule": "Rule",
}


def select(summary: pd.DataFrame, published: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the published numbers for which there is one of ours. The column `of` is the number of all of them.

    Raises UserError if the settings name a dataset that is not there, or if nothing can be compared.
    """
    published = shares(published)
    _check_names("published dataset", settings.datasets, set(published.dataset))
    _check_names("dataset of ours", settings.datasets.values(), set(summary.dataset))
    numbers = as_accuracy(published).drop(columns="percent")
    numbers = numbers.rename(columns={name: f"published_{name}" for name in ("value", "low", "high", "n")})
    numbers["ours_on"] = numbers.dataset.map(lambda name: settings.datasets.get(name, name))
    measured = _measured(summary, sorted(set(numbers.attack)), settings.epsilon_l2)
    measured = measured.rename(columns={"dataset": "ours_on"})
    rows = numbers.merge(
        measured[[*_KEYS, "epsilon", "value", "low", "high", "n_images", "n_seeds", "interval"]], on=_KEYS
    )
    if rows.empty:
        known = "; ".join(
            f"{name}: {', '.join(sorted(set(summary[name])))}" for name in ("backbone", "dataset", "rule")
        )
        raise UserError(
            f"table compare: ours has none of the {len(numbers)} numbers of {settings.published!r}; ours has {known}"
        )
    lies = rows.value.between(rows.published_low, rows.published_high).map({True: "inside", False: "outside"})
    lies = lies.where(rows.published_low.notna(), "-")
    return rows.assign(difference=rows.value - rows.published_value, lies=lies, of=len(numbers))


def _check_names(what: str, names: Iterable[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(
                f"settings of table compare: datasets: there is no {what} {name!r}{suggestion(name, sorted(known))}"
            )


def _measured(summary: pd.DataFrame, attacks: list[str], epsilon_l2: float | None) -> pd.DataFrame:
    """Returns the summary's rows without an attack, and those at one L2 epsilon under the attacks that it has."""
    measured = [
        name for name in attacks if epsilon_l2 is not None and name in set(summary.attack[summary.norm == "l2"])
    ]
    return pd.concat(
        [summary[summary.attack == "clean"], *(at_epsilon(summary, name, epsilon_l2 or 0) for name in measured)]
    )


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per number; "Ours on" and "Metric" only where they tell something."""
    names = {heading: rows[name].map(display) for name, heading in _HEADINGS.items()}
    if (rows.dataset == rows.ours_on).all():
        del names["Ours on"]
    if names["Metric"].nunique() == 1:
        del names["Metric"]
    numbers: list[dict[Any, Any]] = rows.to_dict("records")
    return pd.DataFrame(
        names
        | {
            "Attack": rows.attack.map(display),
            "Published": [
                _number(row["published_value"], row["published_low"], row["published_high"]) for row in numbers
            ],
            "Ours": [_number(row["value"], row["low"], row["high"]) for row in numbers],
            "Difference": [f"{100 * row['difference']:+.1f}" for row in numbers],
            "Ours lies": rows.lies,
        }
    )


def _number(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f}" if low != low else f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def note(rows: pd.DataFrame) -> str:
    """Says what is compared, how much of it lies inside, and which data stand for others."""
    first: dict[Any, Any] = rows.to_dict("records")[0]
    inside, placed = (rows.lies == "inside").sum(), (rows.lies != "-").sum()
    parts = [
        f"Published by {display(first['paper'])}: {len(rows)} of {first['of']} numbers are compared.",
        f"Inside: {inside} of {placed} that have an interval.",
        sample_sizes(rows.rename(columns={"published_n": "n"})),
        f"Ours: {footnote(rows)}",
    ]
    if rows.epsilon.notna().any():
        parts.append(
            f"Under attack ours is at an L2 epsilon of {rows.epsilon.max():g}; the published numbers come without one."
        )
    others = rows[rows.dataset != rows.ours_on]
    if len(others):
        pairs = dict.fromkeys(
            f"{display(measured_on)} for {display(published_for)}"
            for measured_on, published_for in zip(others.ours_on, others.dataset, strict=True)
        )
        parts.append(
            f"Stand-ins: {', '.join(pairs)}. These are different data, so that inside and outside tell of scale only."
        )
    return " ".join(parts)


TABLE = Listing(select=select, show=show, note=note, source="summary published")
