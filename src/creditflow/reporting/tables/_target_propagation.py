"""The form of the target-propagation paper's Tables 1 to 3: mean and standard deviation over seeds, the published ones
beside ours."""

from collections.abc import Callable
from typing import Literal

import pandas as pd

from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import by_rule_order
from creditflow.reporting.tables.settings._target_propagation import TargetPropagationSettings

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

    def select(records: pd.DataFrame, published: pd.DataFrame, settings: TargetPropagationSettings) -> pd.DataFrame:
        values, numbers = of_each_seed(records[records.attack == "clean"]), published[published.metric == metric]
        return _beside_published(values, numbers, "left" if settings.unpublished else "inner")

    def show(rows: pd.DataFrame, settings: TargetPropagationSettings) -> pd.DataFrame:
        return _texts(rows, form)

    return Listing(select=select, show=show, note=_note, source=source, published=published)


def _beside_published(values: pd.DataFrame, published: pd.DataFrame, cells: Literal["left", "inner"]) -> pd.DataFrame:
    """Returns mean and standard deviation of each cell, and how far the mean is from the published one.

    Args:
        cells: "inner" for the cells that have a published number, "left" for all.
    """
    numbers = published[[*_CELL, "value", "spread"]]
    numbers = numbers.rename(columns={"value": "published", "spread": "published_sd"})
    frame = values.groupby(_CELL, as_index=False).agg(
        value=("value", "mean"), sd=("value", "std"), n_seeds=("seed", "size"), n=("n", "max")
    )
    frame = frame.merge(numbers, how=cells, on=_CELL)
    distance = (frame.value - frame.published) / frame.published_sd
    return frame.assign(distance=distance, inside=distance.abs() <= _WITHIN)


def _texts(rows: pd.DataFrame, form: Callable[[float], str]) -> pd.DataFrame:
    rows = by_rule_order(rows).sort_values(["dataset", "backbone"], kind="stable")

    def with_spread(mean: str, spread: str) -> list[str]:
        return [_number(value, sd, form) for value, sd in zip(rows[mean], rows[spread], strict=True)]

    return pd.DataFrame(
        {
            "Dataset": rows.dataset.map(display),
            "Network": rows.backbone.map(display),
            "Rule": rows.rule.map(display),
            "Ours": with_spread("value", "sd"),
            "Published": with_spread("published", "published_sd"),
            "Published SDs between": [
                f"{distance:+.1f}" if distance == distance else "-" for distance in rows.distance
            ],
            f"Within {_WITHIN}": rows.inside.map({True: "yes", False: "no"}).where(rows.published.notna(), "-"),
        }
    )


def _number(value: float, spread: float, form: Callable[[float], str]) -> str:
    if value != value:
        return "-"
    return f"{form(value)} ± {form(spread)}" if spread == spread else form(value)


def _note(rows: pd.DataFrame) -> str:
    inside, published = int(rows.inside.sum()), int(rows.published.notna().sum())
    ours = f"Ours: {span(rows.n_seeds)} seeds"
    if not published:
        return f"{ours}. The paper has no such numbers."
    return f"{ours}; {inside} of {published} within {_WITHIN} published standard deviations."
