"""Mean average precision in percent for each backbone and dataset (the form of the sign-symmetry paper's Table 2):
items at the same Hamming distance in the database's own, drawn order, and expected over all their orders."""

from creditflow.reporting.table import Table

TABLE = Table(
    select=lambda summary, settings: summary[
        (summary.attack == "clean") & summary.metric.isin(["map", "map_tie_averaged"])
    ],
    rows=("backbone", "dataset", "metric"),
)
