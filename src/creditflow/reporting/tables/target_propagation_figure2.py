"""The numbers behind the target-propagation paper's Figure 2. They are the share of a hidden layer's update that does
not change the output, to first order, on a toy regression with two outputs. The share is 0 for exact Gauss-Newton
targets.
"""

import pandas as pd

from creditflow.core.settings import NoSettings
from creditflow.reporting.listing import Listing
from creditflow.reporting.names import display, span
from creditflow.reporting.rules import rule_order


def select(records: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns a row per rule: mean, least and greatest of the seeds, and the mean of their deviations over steps."""
    of_seeds = records[records.metric == "nullspace_ratio"].groupby("rule")
    rows = of_seeds.agg(
        value=("value", "mean"),
        low=("value", "min"),
        high=("value", "max"),
        n_seeds=("seed", "nunique"),
        steps=("n", "max"),
    )
    deviation = records[records.metric == "nullspace_ratio_deviation"].groupby("rule").value.mean()
    return rows.join(deviation.rename("sd_over_steps")).reindex(rule_order(set(rows.index))).reset_index()


def show(rows: pd.DataFrame, settings: NoSettings) -> pd.DataFrame:
    """Returns the texts."""
    return pd.DataFrame(
        {
            "Rule": rows.rule.map(display),
            "Share in the null space": [
                f"{row.value:.3f} ({row.low:.3f} to {row.high:.3f})" for row in rows.itertuples()
            ],
            "Standard deviation over steps": [f"{value:.3f}" for value in rows.sd_over_steps],
        }
    )


def note(rows: pd.DataFrame) -> str:
    """Says what the numbers rest on."""
    means = f"Means of {span(rows.n_seeds)} seeds and {rows.steps.max()} steps"
    return f"{means}, with the least and the greatest of the seeds."


TABLE = Listing(select=select, show=show, note=note, source="records")
