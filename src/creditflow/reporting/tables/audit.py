"""The robustness audit. Robust accuracy in percent under the attack on which a claim rests, then under single attacks,
then under the worst of all attacks for each image. The difference is the worst case's to BP's, in points with its 95%
interval; p is McNemar's over images, adjusted by Holm's method for all worst cases of the audit; p (seeds) is Student's
over the seeds, not adjusted. "Masked" is a gain under the claim's attack that the worst case takes away. Rules and
literature: docs/audit.md."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import rule_order

#: Attack, gradient and heading of the columns of single attacks; those that an experiment lacks are left out.
_SHOWN = (
    ("pgd exact", "PGD exact"),
    ("apgd_ce exact", "APGD-CE exact"),
    ("apgd_dlr exact", "APGD-DLR exact"),
    ("square none", "Square"),
    ("transfer none", "transfer"),
)


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the cells; the columns of dataset and backbone only where there are several."""
    attack, gradient = rows.claim.iloc[0].split()
    shown = [(heading, name) for name, heading in _SHOWN if f"accuracy {name}" in rows]
    frame = pd.DataFrame([_cells(row, f"{display(attack)} {gradient}", shown) for row in rows.to_dict("records")])
    return frame.drop(columns=[name for name in ("Dataset", "Backbone") if frame[name].nunique() == 1])


def _cells(row: dict[Any, Any], claim_heading: str, shown: Sequence[tuple[str, str]]) -> dict[str, str]:
    compared = row["verdict"] != ""
    cells = {"Dataset": display(row["dataset"]), "Backbone": display(row["backbone"])}
    cells |= {"Epsilon": f"{row['epsilon']:g}", "Rule": display(row["rule"]), "Clean": _percent(row["clean"])}
    cells[claim_heading] = _percent(row[f"accuracy {row['claim']}"])
    cells |= {heading: _percent(row[f"accuracy {name}"]) for heading, name in shown}
    cells["Worst case"] = f"{_percent(row['worst'])} ({_percent(row['worst_low'])} to {_percent(row['worst_high'])})"
    difference = f"{100 * row['difference']:+.1f} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"
    cells |= {"Difference to BP": difference if compared else "", "p": f"{row['p']:.2g}" if compared else ""}
    cells["p (seeds)"] = f"{row['p_seeds']:.2g}" if compared and row["p_seeds"] == row["p_seeds"] else ""
    cells["Decided by"] = " ".join(display(word) for word in row["decided_by"].split())
    return cells | {"Verdict": row["verdict"], "Guards": str(len(row["guards"].split("; ")) if row["guards"] else 0)}


def _percent(value: float) -> str:
    return "-" if value != value else f"{100 * value:.1f}"


def select(frame: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns all rows, sorted by dataset, backbone, epsilon and the papers' order of rules."""
    order = rule_order(set(frame.rule))
    ranked = frame.assign(_rank=frame.rule.map(order.index))
    return ranked.sort_values(["dataset", "backbone", "epsilon", "_rank"]).drop(columns="_rank")


def note(rows: pd.DataFrame) -> str:
    """Says on how many images and seeds the numbers rest, and where the guards are."""
    first: dict[Any, Any] = rows.to_dict("records")[0]
    one_place = len(set(zip(rows.dataset, rows.backbone, strict=True))) == 1
    place = f"{display(first['backbone'])}, {display(first['dataset'])}. " if one_place else ""
    most = rows.groupby(["dataset", "backbone"]).n_seeds.transform("max")
    fewer = rows[rows.n_seeds < most].groupby("rule", sort=False).n_seeds.min()
    named = f" ({'; '.join(f'{display(str(rule))}: {n}' for rule, n in fewer.items())})" if len(fewer) else ""
    alone = " One seed says nothing of other models that the same rule would train." if rows.n_seeds.min() == 1 else ""
    met = f"n = {span(rows.n_images)} images x {span(most)} seeds{named}, the same for all attacks."
    return f"{place}{met}{alone} Guards: see audit_guards."


TABLE = Listing(select=select, show=show, note=note, source="audit")
