"""All attacks on one page: accuracy in percent, gradient attacks under both attacker gradients."""

from dataclasses import dataclass

import pandas as pd

from creditflow.reporting.table import Table, at_epsilon


@dataclass(frozen=True)
class Settings:
    """epsilon: for the attacks that use gradients (L-infinity); epsilon_l2: for the others."""

    epsilon: float
    epsilon_l2: float


def select(summary: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns clean accuracy, then every attack at its epsilon."""
    parts = [summary[summary.attack == "clean"]]
    attacked = summary[summary.attack != "clean"]
    # Attacks without gradient after those with one, each group in the order of its name.
    pairs = {(gradient == "none", attack) for attack, gradient in zip(attacked.attack, attacked.gradient, strict=True)}
    for without_gradient, attack in sorted(pairs):
        parts.append(at_epsilon(summary, attack, settings.epsilon_l2 if without_gradient else settings.epsilon))
    return pd.concat(parts)


TABLE = Table(settings=Settings, select=select, rows=("dataset", "backbone", "attack", "gradient", "epsilon"))
