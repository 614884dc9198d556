"""Behind the audit: accuracy, or mAP, in percent under each attack, the attack that decides, the guards that fired,
which are signs that an attack's number means less than it seems, and why a verdict is unresolved (docs/audit.md).
Guards of attacks through the feedback weights are what the audit is about; those of other attacks ask for a stronger
one."""

from typing import Any

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.measures import Measure, measure_of
from creditflow.reporting.names import display, display_of, rules_title
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
    shown = {_spelled(name.removeprefix(start), network): row[name] for name in row if name.startswith(start)}
    numbers = [f"{name} {100 * value:.1f}" for name, value in shown.items() if not pd.isna(value)]
    cells |= {f"{measure.title} under": ", ".join(numbers), "Decided by": _spelled(row["decided_by"], network)}
    return cells | {"Guards": row["guards"], "Unresolved because": row["reason"]}


def _spelled(condition: str, backbone: str) -> str:
    return " ".join(display_of(word, backbone) for word in condition.split()).strip()


TABLE = Listing(select=select, show=show, note=lambda rows: "", source="audit")
