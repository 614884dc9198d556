"""The form of the target-propagation paper's Tables 1 to 3: mean and standard deviation over seeds, the published ones beside ours."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, rule_order, span

_CELL = ["backbone", "dataset", "rule"]

#: How many published standard deviations from the published mean still count as the same.
_WITHIN = 3


@dataclass(frozen=True)
class Settings:
    """published: a file in config/published whose numbers stand beside ours."""

    published: str | None = None


def table(
    of_each_seed: Callable[[pd.DataFrame], pd.DataFrame],
    metric: str,
    form: Callable[[float], str],
    *,
    source: str,
    published: str,
) -> Listing:
    """Returns the table of a metric: records -> a value per network, dataset, rule and seed. The workflow reads `source` and `published`
    from the call's text."""

    def select(records: pd.DataFrame, published: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        theirs = published[published.metric == metric][[*_CELL, "value", "spread"]]
        theirs = theirs.rename(columns={"value": "published", "spread": "published_sd"})
        ours = of_each_seed(records[records.attack == "clean"])
        frame = ours.groupby(_CELL, as_index=False).agg(
            value=("value", "mean"), sd=("value", "std"), n_seeds=("seed", "size"), n=("n", "max")
        )
        frame = frame.merge(theirs, on=_CELL)
        distance = (frame.value - frame.published) / frame.published_sd
        return frame.assign(distance=distance, inside=distance.abs() <= _WITHIN)

    def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
        order = {rule: place for place, rule in enumerate(rule_order(set(rows.rule)))}
        rows = rows.sort_values("rule", key=lambda rules: rules.map(order), kind="stable").sort_values(
            ["dataset", "backbone"], kind="stable"
        )

        def texts(value: str, spread: str) -> list[str]:
            return [
                f"{form(a)} ± {form(b)}" if b == b else form(a) for a, b in zip(rows[value], rows[spread], strict=True)
            ]

        return pd.DataFrame(
            {
                "Dataset": rows.dataset.map(display),
                "Network": rows.backbone.map(display),
                "Rule": rows.rule.map(display),
                "Ours": texts("value", "sd"),
                "Published": texts("published", "published_sd"),
                "Published SDs between": [f"{one:+.1f}" for one in rows.distance],
                f"Within {_WITHIN}": rows.inside.map({True: "yes", False: "no"}),
            }
        )

    def note(rows: pd.DataFrame) -> str:
        inside = int(rows.inside.sum())
        return (
            f"Ours: {span(rows.n_seeds)} seeds; {inside} of {len(rows)} within {_WITHIN} published standard deviations."
        )

    return Listing(settings=Settings, select=select, show=show, note=note, source=source, published=published)
