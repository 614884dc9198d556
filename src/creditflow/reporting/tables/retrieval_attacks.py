"""The numbers behind the figures of retrieval under attack (figures 3 and 6). They are mean average precisions in
percent at each epsilon. The attacker uses the exact gradient, or the rule's own feedback weights. For BP the two are
equal.
"""

from creditflow.reporting.table import Table, hash_attacks

TABLE = Table(
    select=lambda summary, settings: hash_attacks(summary),
    rows=("dataset", "backbone", "attack", "gradient", "epsilon"),
)
