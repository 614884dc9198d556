"""The numbers behind figures 3 and 6: mean average precision in percent at every epsilon, if the attacker uses the
exact gradient, and if it uses the rule's own feedback path. For BP the two are the same."""

from creditflow.reporting.table import Table, hash_attacks

TABLE = Table(
    select=lambda summary, settings: hash_attacks(summary),
    rows=("dataset", "backbone", "attack", "gradient", "epsilon"),
)
