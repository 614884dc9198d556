"""Rules whose feedback weights give the exact gradient, such as BP. They are not attacked a second time."""

import pandas as pd

from creditflow.core import plugins
from creditflow.core.matched import trained_by


def is_exact(rule: str) -> bool:
    """Returns whether a rule's own feedback weights give the exact gradient, as its file declares.

    That of a network that backpropagation trains to the accuracy of another rule's (see `core.matched`) does, too.
    """
    rule = trained_by(rule)
    return rule in plugins.names("rule") and bool(plugins.declared("rule", rule, "exact", False))


def with_feedback(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns a frame in which exact rules have rows of the gradient "feedback", too: those of the exact gradient.

    They are added for each attack on each dataset and network that attacks another rule through its feedback weights.
    The frame has the columns dataset, backbone, rule, attack and gradient.
    """
    cell = ["dataset", "backbone", "attack"]
    attacked = {tuple(row) for row in frame.loc[frame.gradient == "feedback", cell].itertuples(index=False)}
    there = {tuple(row) for row in frame.loc[frame.gradient == "feedback", [*cell, "rule"]].itertuples(index=False)}
    exact = frame[(frame.gradient == "exact") & frame.rule.map(is_exact)]
    wanted = [
        tuple(row[:3]) in attacked and tuple(row) not in there for row in exact[[*cell, "rule"]].itertuples(index=False)
    ]
    added = exact[pd.Series(wanted, exact.index, dtype=bool)].assign(gradient="feedback")
    return pd.concat([frame, added], ignore_index=True) if len(added) else frame
