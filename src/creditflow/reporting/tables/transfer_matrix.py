"""Accuracy in percent under images that were made on another network, the surrogate (columns), for networks trained
with different rules (rows). All networks are attacked from the same two kinds of surrogates. A network's twin has the
same pretraining and the same seed, but was fine-tuned with another rule. This rule is BP, or, for BP's own network, the
rule that the experiment names. The other surrogate was trained with BP from another seed. A network and its twin share
their start, so accuracies are to be compared within a column. An image that a network gets wrong without an attack
counts as wrong in all columns.
"""

import pandas as pd

from creditflow.reporting import matrices
from creditflow.reporting.listing import Listing
from creditflow.reporting.outcomes import accuracy_matrix
from creditflow.reporting.tables.settings.transfer_matrix import Settings


def select(outcomes: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per network and surrogate."""
    return matrices.in_order(
        accuracy_matrix(outcomes, settings.attack, settings.epsilon, "transfer_matrix", matrices.SURROGATES)
    )


def show(rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Returns a row per network, a column per surrogate."""
    return matrices.shown(rows)


TABLE = Listing(select=select, show=show, note=matrices.note, source="outcomes")
