"""What each rule's training costs a network. Floating-point operations are counted for each training image and epoch,
and include passes that train feedback alone. The table shows their number, their ratio to backpropagation's, and the
time that an epoch took.
"""

from typing import Any

import pandas as pd

from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.populations.cost import flops_per_image
from creditflow.populations.rule import get_update_rule
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import by_rule_order
from creditflow.reporting.tables.settings.population_costs import Settings


def select(members: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per population."""
    frame = pd.DataFrame(
        [
            {"dataset": dataset, "variant": variant, "rule": rule} | _costs(str(rule), population)
            for (dataset, variant, rule), population in members.groupby(["dataset", "backbone", "rule"])
        ]
    )
    reference = frame[frame.rule == "bp"].set_index(["dataset", "variant"]).total
    totals_of_bp = [reference.get((row.dataset, row.variant), float("nan")) for row in frame.itertuples()]
    return frame.assign(over_bp=frame.total / totals_of_bp)


def _costs(rule_id: str, population: pd.DataFrame) -> dict[str, float]:
    """Returns what training costs each network of a population.

    These are operations for each image (`step`, `feedback` alone, `total`), seconds for each epoch, and the number of
    networks (`members`).
    """
    saved = population.iloc[0].saved
    training, run = saved.training, saved.content["run"]
    rule = get_update_rule(rule_id)
    rule_settings = parse(plugins.settings_class("update_rule", rule_id), training.rule, "settings of the rule")
    step, feedback = flops_per_image(rule, rule_settings, saved.network, training)
    feedback_passes = training.extra_feedback_epochs + training.feedback_epochs / training.epochs
    alone = feedback * (1 if rule.feedback_step_after_each_step else feedback_passes)
    seconds = run["wall_time_s"] / max(run["epochs_of_this_run"], 1) / len(population)
    return {"step": step, "feedback": alone, "total": step + alone, "seconds": seconds, "members": len(population)}


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns the texts, rules in the usual order."""
    rows = by_rule_order(rows)

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
    advice = "compare operations, or what `make bench` times side by side"
    return f"Populations of {span(rows.members)} networks. {times}: {advice}."


TABLE = Listing(select=select, show=show, note=note, source="populations")
