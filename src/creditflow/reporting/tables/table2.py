"""Mean average precision in percent for each backbone and dataset (the form of the sign-symmetry paper's Table 2).
Items at the same Hamming distance can be ordered in two ways. One value takes the random order that the database has;
the other is the expected value over all orders of these items.
"""

from creditflow.reporting.table import Table

TABLE = Table(
    select=lambda summary, settings: summary[
        (summary.attack == "clean") & summary.metric.isin(["map", "map_tie_averaged"])
    ],
    rows=("backbone", "dataset", "metric"),
)
