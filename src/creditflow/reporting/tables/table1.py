"""Clean accuracy in percent for each backbone and dataset (the form of the sign-symmetry paper's Table 1)."""

from creditflow.reporting.table import Table

TABLE = Table(
    select=lambda summary, settings: summary[summary.attack == "clean"],
    rows=("backbone", "dataset"),
)
