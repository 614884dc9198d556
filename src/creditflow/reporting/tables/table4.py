"""Accuracy in percent under HopSkipJump at one L2 epsilon (the form of the sign-symmetry paper's Table 4)."""

from creditflow.reporting.table import attack_table

TABLE = attack_table("hopskipjump")
