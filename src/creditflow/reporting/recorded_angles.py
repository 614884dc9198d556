"""Angles between a rule's update of a layer and two references.

The references are the gradient ("bp"), and the update that Gauss-Newton targets teach ("gnt").
"""

import pandas as pd


def recorded_angles(records: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of such angles with three more columns.

    They are `to` ("bp" or "gnt"), `layer` (1, 2, ...) and, for "gnt", the text of `damping`.
    """
    rows = records[records.metric.str.startswith("angle_") & records.epoch.notna()]
    parts = rows.metric.str.extract(r"^angle_(?P<to>bp|gnt)_layer(?P<layer>\d+)(?:_damping(?P<damping>.+))?$")
    return rows.join(parts.astype({"layer": int}))


def best_damping(rows: pd.DataFrame) -> str:
    """Returns the damping, as text, with the smallest mean angle over epochs and seeds.

    The target-propagation paper chooses the damping for its Figure 4 in this way.
    """
    return str(rows[rows.to == "gnt"].groupby("damping").value.mean().idxmin())
