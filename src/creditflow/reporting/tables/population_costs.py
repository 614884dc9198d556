"""What each rule's training costs a network: floating-point operations for each training image and epoch, passes of feedback alone
included, in all and over backpropagation's, and the time an epoch took."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from creditflow.core.settings import parse
from creditflow.populations.cost import flops_per_image
from creditflow.populations.rule import get_update_rule
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, rule_order, span


@dataclass(frozen=True)
class Settings:
    """variants: {label: variant} to show. rule: one, or "all". dataset: the first if left out."""

    variants: dict[str, str] = field(default_factory=dict)
    rule: str = "all"
    dataset: str | None = None


def select(members: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per population."""
    rows = []
    for (dataset, variant, rule), its in members.groupby(["dataset", "backbone", "rule"]):
        saved = its.iloc[0].saved
        made, own = get_update_rule(str(rule)), saved.training
        step, feedback = flops_per_image(
            made, parse(made.settings, own.rule, "settings of the rule"), saved.network, own
        )
        alone = feedback * (1 if made.follows else own.extra_feedback_epochs + own.feedback_epochs / own.epochs)
        run = saved.content["run"]
        rows.append(
            {
                "dataset": dataset,
                "variant": variant,
                "rule": rule,
                "step": step,
                "feedback": alone,
                "total": step + alone,
            }
            | {"seconds": run["wall_time_s"] / max(run["epochs_of_this_run"], 1) / len(its), "members": len(its)}
        )
    frame = pd.DataFrame(rows)
    reference = frame[frame.rule == "bp"].set_index(["dataset", "variant"]).total
    return frame.assign(
        over_bp=frame.total / [reference.get((row.dataset, row.variant), float("nan")) for row in frame.itertuples()]
    )


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the texts, rules in the usual order."""
    order = {rule: place for place, rule in enumerate(rule_order(set(rows.rule)))}
    rows = rows.sort_values("rule", key=lambda rules: rules.map(order), kind="stable")

    def mega(name: str) -> Any:
        return [f"{value / 1e6:.2f}" if value else "-" for value in rows[name]]

    return pd.DataFrame(
        {
            "Network": rows.variant.map(display),
            "Rule": rows.rule.map(display),
            "MFLOP, steps": mega("step"),
            "MFLOP, feedback alone": mega("feedback"),
            "Over BP": [f"{value:.2f}" if value == value else "-" for value in rows.over_bp],
            "Seconds per epoch and network": [f"{value:.2f}" for value in rows.seconds],
        }
    )


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    times = "Times are the wall's, of one run each, with measurements, pauses and whatever else the machine did"
    return f"Populations of {span(rows.members)} networks. {times}: compare operations, or what `make bench` times side by side."


TABLE = Listing(settings=Settings, select=select, show=show, note=note, source="populations")
