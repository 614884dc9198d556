"""Behind the audit: accuracy, or mAP, in percent under each attack, the attack that decides most, the guards that
fired, and why a verdict is unresolved. A guard is a sign that an attack's number means less than it seems. Guards of
attacks through the rule's own feedback weights are what the audit is about; those of other attacks ask for a stronger
attack. docs/audit.md explains them."""

import re
from typing import Any

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.measures import Measure, measure_of
from creditflow.reporting.names import condition_title, display, rules_title
from creditflow.reporting.tables.audit import select as in_order

_KEYS = ["dataset", "backbone", "epsilon", "rule"]
_NONE = "none"


def select(frame: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the rows with their accuracies under single attacks; guards and reasons are "none" where there are."""
    rows = in_order(frame, settings)
    measured = measure_of(rows).columns(rows)
    texts = rows.assign(guards=rows.guards.replace("", _NONE), reason=rows.reason.replace("", _NONE))
    return texts[[*_KEYS, "decided_by", *measured, "guards", "reason"]]


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the cells; the columns of dataset and backbone only where there are several."""
    measure = measure_of(rows)
    frame = pd.DataFrame([_cells(row, measure) for row in rows.to_dict("records")])
    return frame.drop(columns=[name for name in ("Dataset", "Backbone") if frame[name].nunique() == 1])


def _cells(row: dict[Any, Any], measure: Measure) -> dict[str, str]:
    cells = {"Dataset": display(row["dataset"]), "Backbone": display(row["backbone"])}
    cells |= {"Epsilon": f"{row['epsilon']:g}", rules_title(row["backbone"]): display(row["rule"])}
    start = measure.prefix
    network = row["backbone"]
    titles = {
        name.removeprefix(start): condition_title(name.removeprefix(start), network)
        for name in row
        if name.startswith(start)
    }
    values = {title: 100 * row[f"{start}{condition}"] for condition, title in titles.items()}
    numbers = [f"{title}: {value:.1f}" for title, value in values.items() if not pd.isna(value)]
    cells |= {f"{measure.title} under": "; ".join(numbers), "Decided by": condition_title(row["decided_by"], network)}
    return cells | {"Guards": _in_words(row["guards"], titles), "Unresolved because": _in_words(row["reason"], titles)}


def _in_words(text: str, titles: dict[str, str]) -> str:
    """Returns what the audit says of attacks and rules, with their names in place of their ids."""
    for condition in sorted(titles, key=len, reverse=True):
        text = text.replace(condition, titles[condition])
    # A part of a reason begins with the rule that it speaks of.
    return re.sub(r"(^|; )(\w+)(?=: )", lambda part: part[1] + display(part[2]), text)


TABLE = Listing(select=select, show=show, note=lambda rows: "", source="audit")
