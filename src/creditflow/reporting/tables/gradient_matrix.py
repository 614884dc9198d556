"""Whose gradient? Accuracy in percent under one attack, for networks trained with different rules (rows) and for
different gradients that the attacker uses (columns). The exact gradient is the derivative of what the network computes.
The other attackers replace W^T in the backward pass: by the network's own feedback weights, or by fresh ones that the
attacker makes by a rule. Fresh weights of uSF are the own ones of uSF's networks, as uSF draws no random numbers. If a
network trained by plain backpropagation has a high accuracy in a column, then that column's attacker is weak. A high
accuracy of another network in that column then does not show that this network is robust. An image that a network gets
wrong without an attack counts as wrong in all columns. BP's feedback weights are W, which give the exact gradient.
"""

import pandas as pd

from creditflow.reporting import matrices
from creditflow.reporting.listing import Listing
from creditflow.reporting.outcomes import accuracy_matrix
from creditflow.reporting.tables.settings.gradient_matrix import Settings


def select(outcomes: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per network and attacker's gradient."""
    return matrices.in_order(
        accuracy_matrix(outcomes, settings.attack, settings.epsilon, "gradient_matrix", matrices.GRADIENTS)
    )


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per network, a column per attacker's gradient."""
    return matrices.shown(rows)


TABLE = Listing(select=select, show=show, note=matrices.note, source="outcomes")
