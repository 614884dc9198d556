"""The numbers behind figures 3 and 6: mean average precision in percent at every epsilon under both attacker
gradients."""

from creditflow.reporting.table import Table, hash_attacks

TABLE = Table(
    select=lambda summary, settings: hash_attacks(summary),
    rows=("dataset", "backbone", "attack", "gradient", "epsilon"),
)
