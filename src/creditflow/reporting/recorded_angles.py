"""Angles between a rule's update of a layer and two references: the gradient (bp), and what Gauss-Newton targets teach (gnt)."""

import pandas as pd


def recorded_angles(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of such angles, with columns `to` (bp, gnt), `layer` (1, 2, ...) and, for gnt, `damping` as written."""
    rows = records[records.metric.str.startswith("angle_") & records.epoch.notna()]
    parts = rows.metric.str.extract(r"^angle_(?P<to>bp|gnt)_layer(?P<layer>\d+)(?:_damping(?P<damping>.+))?$")
    return rows.join(parts.astype({"layer": int}))


def best_damping(rows: pd.DataFrame) -> str:
    """Returns the damping, as written, whose angle is smallest in the mean over epochs and seeds, as the target-propagation paper
    chooses it for its Figure 4."""
    return str(rows[rows.to == "gnt"].groupby("damping").value.mean().idxmin())
