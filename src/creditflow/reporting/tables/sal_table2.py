"""Which pathways a rule connects, and which of them learn (the SAL paper's Table 2). Pathways run from lower to higher
layers of the ascending stream (u to u), or down the descending stream (d to d). Others connect the two streams (u to d,
d to u). The table shows what each rule's file declares.
"""

import pandas as pd

from creditflow.core import plugins
from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order

_PATHWAYS = {"uu": "u to u", "dd": "d to d", "ud": "u to d", "du": "d to u"}
_KINDS = {"connected": "connected", "plastic": "learns"}


def select(summary: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns a row per rule of the experiment, with zeros and ones."""
    rows = []
    for rule in rule_order(set(summary.rule)):
        row: dict[str, object] = {"rule": rule}
        for kind, text in _KINDS.items():
            there = plugins.declared("update_rule", rule, kind)
            row |= {f"{text}, {name}": int(pathway in there) for pathway, name in _PATHWAYS.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns yes and no."""
    texts = rows.drop(columns="rule").map(lambda there: "yes" if there else "-")
    texts.insert(0, "Rule", rows.rule.map(display))
    return texts


TABLE = Listing(select=select, show=show, note=lambda rows: "", source="summary")
