"""Guards that fired: signs that an attack's number means less than it seems (docs/audit.md). Those of attacks through
the feedback weights are what the audit is about; those of exact attacks ask for a stronger attack."""

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.tables.audit import select as in_order

_KEYS = ["dataset", "backbone", "epsilon", "rule"]
_NONE = "none"


def select(frame: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns one row per guard, and one that says so where none fired."""
    rows = in_order(frame, settings)
    listed = rows.assign(guard=rows.guards.map(lambda text: text.split("; ") if text else [_NONE]))
    return listed.explode("guard")[[*_KEYS, "guard"]]


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns one row per dataset, backbone, rule and guard, with the epsilons at which it fired."""
    groups = rows.groupby(["dataset", "backbone", "rule", "guard"], sort=False).epsilon
    frame = groups.agg(lambda sizes: ", ".join(f"{size:g}" for size in sizes)).reset_index()
    texts = {
        "Dataset": frame.dataset.map(display),
        "Backbone": frame.backbone.map(display),
        "Rule": frame.rule.map(display),
    }
    return pd.DataFrame(texts | {"Guard": frame.guard.str.replace("_", " "), "At epsilon": frame.epsilon})


TABLE = Listing(select=select, show=show, note=lambda rows: "", source="audit")
