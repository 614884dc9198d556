"""Accuracy in percent under Boundary Attack at one L2 epsilon (the form of the sign-symmetry paper's Table 3)."""

from creditflow.reporting.table import attack_table

TABLE = attack_table("boundary")
