"""Accuracy in percent under images that were made on another network, the surrogate (columns), for networks trained
with different rules (rows); dark is accurate. A network's twin has the same pretraining and the same seed, but was
fine-tuned with another rule. This rule is BP, or, for BP's own network, the rule that the experiment names. The other
surrogate was trained with BP from another seed. Accuracies are to be compared within a column. The table
transfer_matrix has the intervals.
"""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.core.given import GIVEN_MODELS
from creditflow.reporting import matrices
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._matrix import Group, draw_matrix
from creditflow.reporting.figures.settings.transfer_matrix import Settings
from creditflow.reporting.outcomes import accuracy_matrix

_SURROGATES = {"surrogate:twin": "its twin\n(same start)", "surrogate:other_seed": "BP of\nanother seed"}


_AMONG_GIVEN = {"surrogate:twin": "another\nmodel", "surrogate:other_seed": "the reference of\nanother seed"}


def draw(outcomes: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the heat map of one dataset and backbone."""
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        outcomes = only(outcomes, column, wanted, "transfer_matrix", f"attack {settings.attack!r}")
    rows = accuracy_matrix(outcomes, settings.attack, settings.epsilon, "transfer_matrix", matrices.SURROGATES)
    known = set(rows.condition)
    labels = _AMONG_GIVEN if set(rows.backbone) == {GIVEN_MODELS} else _SURROGATES
    made_on = {name: label for name, label in labels.items() if name in known}
    groups = [Group("", {"none": "no\nattack"}), Group("images made on", made_on)]
    title = "Accuracy under images that were made on another network"
    return draw_matrix(rows, groups, title, matrices.figure_note(rows))


FIGURE = Figure(draw=draw, source="outcomes")
