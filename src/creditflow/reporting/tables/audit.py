"""The robustness audit: each rule against its reference, mostly BP. All numbers are percentages of images, or mean
average precisions of a retrieval. "Clean" is accuracy without an attack, with that of the reference in brackets. "Worst
case" counts an image as fooled if any attack fools it. "Claim" is the difference to the reference under the attack on
which a claim of robustness rests. "Lost" is the share of this difference that is gone in the worst case. "Net" is the
difference to the reference in the worst case. Differences are in points. Numbers have 95% intervals; the verdicts hold
for all comparisons together. The table audit_guards says why a verdict is unresolved. docs/audit.md says how verdicts
come about.
"""

from typing import Any

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.measures import measure_of
from creditflow.reporting.names import condition_title, display, rules_title, span
from creditflow.reporting.rules import rule_order


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the cells; the columns of dataset and backbone only where there are several."""
    frame = pd.DataFrame([_cells(row) for row in rows.to_dict("records")])
    return frame.drop(columns=[name for name in ("Dataset", "Backbone") if frame[name].nunique() == 1])


def _cells(row: dict[Any, Any]) -> dict[str, str]:
    cells = {"Dataset": display(row["dataset"]), "Backbone": display(row["backbone"])}
    cells |= {"Epsilon": f"{row['epsilon']:g}", rules_title(row["backbone"]): display(row["rule"])}
    compared = row["net_effect"] != ""
    reference = f" ({_percent(row['reference_clean'])})" if compared else ""
    cells["Clean"] = f"{_percent(row['clean'])}{reference}"
    cells["Worst case"] = f"{_percent(row['worst'])} ({_percent(row['worst_low'])} to {_percent(row['worst_high'])})"
    if not compared:
        return cells | dict.fromkeys(("Claim", "Lost", "Claim's verdict", "Net", "p", "Net effect"), "")
    shares = [row["lost_share"], row["lost_low"], row["lost_high"]]
    lost = "" if pd.isna(shares[0]) else "{:.0f}% ({:.0f} to {:.0f})".format(*(100 * share for share in shares))
    cells |= {"Claim": _points(row, "claim_difference", "claim_low", "claim_high"), "Lost": lost}
    cells |= {"Claim's verdict": row["claim_verdict"], "Net": _points(row, "difference", "low", "high")}
    return cells | {"p": f"{row['p']:.2g}", "Net effect": row["net_effect"]}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(row: dict[Any, Any], value: str, low: str, high: str) -> str:
    return f"{100 * row[value]:+.1f} ({100 * row[low]:+.1f} to {100 * row[high]:+.1f})"


def select(frame: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns all rows, sorted by dataset, backbone, epsilon and the papers' order of rules."""
    order = rule_order(set(frame.rule))
    ranked = frame.assign(_rank=frame.rule.map(order.index))
    return ranked.sort_values(["dataset", "backbone", "epsilon", "_rank"]).drop(columns="_rank")


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers are and rest on, under which attack a claim is made, and what words mean."""
    first: dict[Any, Any] = rows.to_dict("records")[0]
    one_place = len(set(zip(rows.dataset, rows.backbone, strict=True))) == 1
    place = f"{display(first['backbone'])}, {display(first['dataset'])}. " if one_place else ""
    measure = measure_of(rows)
    what = "" if measure.title == "Accuracy" else f"Numbers are {measure.title}. "
    most = rows.groupby(["dataset", "backbone"]).n_seeds.transform("max")
    fewer = rows[rows.n_seeds < most].groupby("rule", sort=False).n_seeds.min()
    named = f" ({'; '.join(f'{display(str(rule))}: {n}' for rule, n in fewer.items())})" if len(fewer) else ""
    compared = rows[rows.net_effect != ""]
    claims = " or ".join(condition_title(name, first["backbone"]) for name in dict.fromkeys(compared.claim))
    met = f"n = {span(rows.n_images)} {measure.examples} x {span(most)} seeds{named}, the same for all attacks."
    few = rows[rows.scope != "any seed"]
    fixed = " With fewer than 3 seeds the words speak of these networks only." if len(few) else ""
    words = f"p is multiplied by the number of comparisons ({len(compared)}); margin {first['margin']:g} points."
    return f"{place}{what}Claim: {claims}. {met}{fixed} {words}"


TABLE = Listing(select=select, show=show, note=note, source="audit")
