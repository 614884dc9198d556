"""The numbers behind figures 2, 4 and 5: robust accuracy in percent at every epsilon, if the attacker uses the exact
gradient, and if it uses the rule's own feedback path. For BP the two are the same."""

from creditflow.reporting.table import Table, white_box

TABLE = Table(
    select=lambda summary, settings: white_box(summary),
    rows=("dataset", "backbone", "attack", "gradient", "epsilon"),
)
