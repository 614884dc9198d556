"""The numbers behind the target-propagation paper's Figure 4. One is the angle in degrees between each rule's update of
a hidden layer and the gradient. The other is the angle to the update that Gauss-Newton targets teach. Their damping is
the one with the smallest mean angle, for each rule and layer.
"""

from typing import Any

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.recorded_angles import best_damping, recorded_angles
from creditflow.reporting.rules import by_rule_order

_ROW = ["dataset", "backbone", "rule", "layer"]
_NUMBERS = {"bp": "to_bp", "gnt": "to_gnt"}


def select(records: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns a row per network, rule and layer: the mean angle, and the least and greatest of the seeds' means.

    Means are over epochs and seeds.
    """
    rows = []
    for cell, angles in recorded_angles(records).groupby(_ROW):
        damping = best_damping(angles)
        row: dict[str, Any] = dict(zip(_ROW, cell, strict=True)) | {"damping": damping}
        row["n_seeds"] = angles.seed.nunique()
        for to, chosen in (("bp", angles[angles.to == "bp"]), ("gnt", angles[angles.damping == damping])):
            of_seeds = chosen.groupby("seed").value.mean()
            row |= {
                _NUMBERS[to]: of_seeds.mean(),
                f"{_NUMBERS[to]}_low": of_seeds.min(),
                f"{_NUMBERS[to]}_high": of_seeds.max(),
            }
        rows.append(row | {"epochs": int(angles.epoch.nunique()), "n": angles.n.max()})
    return pd.DataFrame(rows)


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the texts, rules in the usual order."""
    rows = by_rule_order(rows.sort_values("layer", kind="stable"))
    rows = rows.sort_values(["dataset", "backbone"], kind="stable")

    def texts(name: str) -> list[str]:
        return [
            f"{mean:.1f} ({least:.1f} to {greatest:.1f})"
            for mean, least, greatest in zip(rows[name], rows[f"{name}_low"], rows[f"{name}_high"], strict=True)
        ]

    return pd.DataFrame(
        {
            "Dataset": rows.dataset.map(display),
            "Network": rows.backbone.map(display),
            "Rule": rows.rule.map(display),
            "Hidden layer": rows.layer.astype(str),
            "To the gradient": texts("to_bp"),
            "To Gauss-Newton targets": texts("to_gnt"),
            "Damping": rows.damping,
        }
    )


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    means = f"Means over {rows.epochs.max()} epochs and {span(rows.n_seeds)} seeds"
    return f"{means}, with the least and the greatest of the seeds; a batch of {rows.n.max()} training images."


TABLE = Listing(select=select, show=show, note=note, source="records")
