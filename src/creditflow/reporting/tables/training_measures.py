"""What was measured of each network during training, at its last epoch, and the learning rate that was chosen. Numbers
are means over seeds, with their standard deviation. Accuracies and shares are fractions, and angles are degrees. A
chosen rate that is the lowest or the highest tried may not be the best one that there is.
"""

import pandas as pd

from creditflow.core.errors import UserError
from creditflow.populations.rates import edge_of_grid, with_edge
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import by_rule_order
from creditflow.reporting.tables.settings.training_measures import Settings

_NETWORK = ["dataset", "backbone", "rule"]

#: What is recorded of the choice of a learning rate, without an epoch.
_RATES = ("learning_rate", "lowest_rate", "highest_rate")


def select(records: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row for each network and measure."""
    clean = records[records.attack == "clean"]
    by_epoch = clean[clean.epoch.notna()]
    last = by_epoch.groupby([*_NETWORK, "seed", "metric"]).epoch.transform("max")
    kept = pd.concat([by_epoch[by_epoch.epoch == last], clean[clean.metric.isin(_RATES)]])
    frame = kept.groupby([*_NETWORK, "metric"], as_index=False).agg(
        value=("value", "mean"),
        sd=("value", "std"),
        least=("value", "min"),
        greatest=("value", "max"),
        epoch=("epoch", "max"),
        n_seeds=("seed", "nunique"),
    )
    if missing := sorted(set(settings.metrics.values()) - set(frame.metric)):
        known = ", ".join(sorted(set(frame.metric))) or "none"
        raise UserError(f"training_measures: no measure {', '.join(missing)} was recorded; there are {known}")
    return frame


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the texts: a row for each network, rules in the usual order."""
    networks = by_rule_order(rows[_NETWORK].drop_duplicates()).sort_values(["dataset", "backbone"], kind="stable")
    measured = {tuple(row[name] for name in [*_NETWORK, "metric"]): row for row in rows.to_dict("records")}
    texts = []
    for dataset, backbone, rule in networks.astype(str).itertuples(index=False):
        network = (dataset, backbone, rule)
        rates = [measured.get((*network, name)) for name in _RATES]
        text = {"Dataset": display(dataset), "Network": display(backbone), "Rule": display(rule)}
        text["Learning rate"] = _rate([row["value"] for row in rates if row])
        for label, metric in settings.metrics.items():
            row = measured.get((*network, metric))
            text[label] = "-" if row is None else _with_spread(row["value"], row["sd"])
        texts.append(text)
    return pd.DataFrame(texts)


def _rate(values: list[float]) -> str:
    """Returns the chosen rate with its edge; the values are those of `_RATES`, or the chosen one alone, or none."""
    chosen, *tried = values or [float("nan")]
    return with_edge(chosen, edge_of_grid(chosen, tried) if tried else "")


def _with_spread(value: float, spread: float) -> str:
    return f"{value:.3g}" + (f" ± {spread:.2g}" if spread == spread else "")


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    return f"{span(rows.n_seeds)} seeds; last epoch {span(rows.epoch.dropna())}."


TABLE = Listing(select=select, show=show, note=note, source="records")
