"""The form of the target-propagation paper's Tables 1 to 3: mean and standard deviation over seeds, the published ones
beside ours."""

from collections.abc import Callable

import pandas as pd

from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import by_rule_order
from creditflow.reporting.tables.settings._published import OtherPublishedSettings

_CELL = ["backbone", "dataset", "rule"]

#: How many published standard deviations from the published mean still count as the same.
_WITHIN = 3


def table(
    of_each_seed: Callable[[pd.DataFrame], pd.DataFrame],
    metric: str,
    form: Callable[[float], str],
    *,
    source: str,
    published: str,
) -> Listing:
    """Returns the table of one metric.

    Args:
        of_each_seed: clean records -> rows with a value per network, dataset, rule and seed.
        metric: the metric of the published numbers.
        form: how a number is written.
        source: the frames that it shows. The workflow reads this argument and the next from the text of the call.
        published: the file of published numbers.
    """

    def select(records: pd.DataFrame, published: pd.DataFrame, settings: OtherPublishedSettings) -> pd.DataFrame:
        return _beside_published(
            of_each_seed(records[records.attack == "clean"]), published[published.metric == metric]
        )

    def show(rows: pd.DataFrame, settings: OtherPublishedSettings) -> pd.DataFrame:
        return _texts(rows, form)

    return Listing(select=select, show=show, note=_note, source=source, published=published)


def _beside_published(values: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Returns mean and standard deviation of each cell, and how far the mean is from the published one."""
    numbers = published[[*_CELL, "value", "spread"]]
    numbers = numbers.rename(columns={"value": "published", "spread": "published_sd"})
    frame = values.groupby(_CELL, as_index=False).agg(
        value=("value", "mean"), sd=("value", "std"), n_seeds=("seed", "size"), n=("n", "max")
    )
    frame = frame.merge(numbers, on=_CELL)
    distance = (frame.value - frame.published) / frame.published_sd
    return frame.assign(distance=distance, inside=distance.abs() <= _WITHIN)


def _texts(rows: pd.DataFrame, form: Callable[[float], str]) -> pd.DataFrame:
    rows = by_rule_order(rows).sort_values(["dataset", "backbone"], kind="stable")

    def with_spread(mean: str, spread: str) -> list[str]:
        return [
            f"{form(value)} ± {form(sd)}" if sd == sd else form(value)
            for value, sd in zip(rows[mean], rows[spread], strict=True)
        ]

    return pd.DataFrame(
        {
            "Dataset": rows.dataset.map(display),
            "Network": rows.backbone.map(display),
            "Rule": rows.rule.map(display),
            "Ours": with_spread("value", "sd"),
            "Published": with_spread("published", "published_sd"),
            "Published SDs between": [f"{distance:+.1f}" for distance in rows.distance],
            f"Within {_WITHIN}": rows.inside.map({True: "yes", False: "no"}),
        }
    )


def _note(rows: pd.DataFrame) -> str:
    inside = int(rows.inside.sum())
    return f"Ours: {span(rows.n_seeds)} seeds; {inside} of {len(rows)} within {_WITHIN} published standard deviations."
