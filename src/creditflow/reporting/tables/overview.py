"""All attacks on one page: accuracy in percent. Attacks that use a gradient have a row for the exact gradient and a row
for the rule's own feedback weights; for BP the two are equal. The table gradient_matrix has fresh feedback weights."""

import pandas as pd

from creditflow.reporting.table import Table, at_epsilon, without_fresh_feedback
from creditflow.reporting.tables.settings.overview import Settings


def select(summary: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns clean accuracy, then every attack at its norm's epsilon, L-infinity first."""
    sizes = {"linf": settings.epsilon_linf, "l2": settings.epsilon_l2, "l0": settings.epsilon_l0}
    parts = [summary[summary.attack == "clean"]]
    for norm, size in sizes.items():
        for attack in sorted(set(summary.attack[summary.norm == norm])):
            parts.append(at_epsilon(summary, attack, size))
    return without_fresh_feedback(pd.concat(parts))


TABLE = Table(select=select, rows=("dataset", "backbone", "attack", "gradient", "norm", "epsilon"))
