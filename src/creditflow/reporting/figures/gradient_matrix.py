"""Whose gradient? Accuracy in percent under one attack, for networks trained with different rules (rows) and for
different gradients that the attacker uses (columns); dark is accurate. The exact gradient is the derivative of what the
network computes. The other attackers replace W^T in the backward pass: by the network's own feedback weights, or by
fresh ones that the attacker makes by a rule. A high accuracy of the BP networks, which were trained by plain
backpropagation, shows that the attacker of this column is weak, whatever the network. An image that a network gets
wrong without an attack counts as wrong in all columns. BP's feedback weights are W, which give the exact gradient. The
table gradient_matrix has the intervals."""

import pandas as pd
from matplotlib.figure import Figure as Canvas

from creditflow.reporting import matrices
from creditflow.reporting.figure import Figure, only
from creditflow.reporting.figures._matrix import Group, draw_matrix
from creditflow.reporting.figures.settings.gradient_matrix import Settings
from creditflow.reporting.names import display
from creditflow.reporting.outcomes import accuracy_matrix

_OWN = {
    "exact": "exact\ngradient",
    "own": "the model's own\ngradient",
    "feedback": "the network's own\nfeedback weights",
}


def draw(outcomes: pd.DataFrame, settings: Settings) -> Canvas:
    """Returns the heat map of one dataset and backbone."""
    for column, wanted in (("dataset", settings.dataset), ("backbone", settings.backbone)):
        outcomes = only(outcomes, column, wanted, "gradient_matrix", f"attack {settings.attack!r}")
    rows = accuracy_matrix(outcomes, settings.attack, settings.epsilon, "gradient_matrix", matrices.GRADIENTS)
    conditions = matrices.condition_order(rows.condition)
    fresh = {name: matrices.fresh_rule(name) for name in conditions if name.startswith("through:")}
    groups = [
        Group("", {"none": "no\nattack"}),
        Group("attacker uses", {name: label for name, label in _OWN.items() if name in conditions}),
        Group("attacker uses fresh feedback weights of", fresh),
    ]
    return draw_matrix(rows, groups, title(rows), matrices.figure_note(rows))


def title(rows: pd.DataFrame) -> str:
    """Returns a sentence that compares BP networks' accuracy under the exact gradient and under the weakest."""
    attack = display(str(rows.attack.iloc[0]))
    of_bp = rows[rows.rule == "bp"]
    accuracies = dict(zip(of_bp.condition, of_bp.value, strict=True))
    fresh = [name for name in accuracies if name.startswith("through:")]
    if "exact" not in accuracies or not fresh:
        return f"Accuracy under {attack}, by the gradient that the attacker uses"
    highest = max(fresh, key=accuracies.__getitem__)
    exact, weakened = (f"{100 * accuracies[name]:.0f}%" for name in ("exact", highest))
    return (
        f"Accuracy of the BP networks under {attack} is {exact} if the attacker uses the exact gradient,"
        f" and {weakened} if it uses {display(highest)}"
    )


FIGURE = Figure(draw=draw, source="outcomes")
