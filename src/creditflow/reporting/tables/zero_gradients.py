"""Share of attacked images, in percent, at which the gradient of the attack's own loss is exactly zero. From there a
gradient attack cannot move: accuracy under it then says nothing of robustness. Compare the squared error of
probabilities with cross-entropy."""

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order

_ROW = ["dataset", "backbone", "rule"]


def select(records: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the share of each model and attack."""
    return records[(records.metric == "zero_gradient_share") & (records.gradient == "exact")]


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns a row per way to train and rule, a column per attack: mean, least and most of the seeds."""
    shown = []
    for (dataset, backbone), group in rows.groupby(["dataset", "backbone"], sort=False):
        for rule in rule_order(set(group.rule)):
            of_attack = group[group.rule == rule].groupby("attack").value.agg(["mean", "min", "max"])
            texts = {
                display(str(attack)): f"{100 * mean:.1f} ({100 * least:.1f} to {100 * most:.1f})"
                for attack, mean, least, most in of_attack.itertuples()
            }
            shown.append(
                {"Dataset": display(str(dataset)), "Network": display(str(backbone)), "Rule": display(rule)} | texts
            )
    return pd.DataFrame(shown).fillna("-")


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    seeds = f"Means over {rows.seed.nunique()} seeds at most, with the least and the greatest"
    return f"{seeds}; n = {rows.n.min()} to {rows.n.max()} images each."


TABLE = Listing(select=select, show=show, note=note, source="records")
