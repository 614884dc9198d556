"""The numbers behind the figures of accuracy against epsilon (figures 2, 4 and 5). They are accuracies under attack in
percent at each epsilon. The attacker uses the exact gradient, or the rule's own feedback weights. For BP the two are
equal.
"""

from creditflow.reporting.table import Table, white_box

TABLE = Table(
    select=lambda summary, settings: white_box(summary),
    rows=("dataset", "backbone", "attack", "gradient", "epsilon"),
)
