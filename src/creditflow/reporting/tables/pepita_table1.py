"""Accuracy in percent of networks trained on natural images, chosen by natural accuracy: the PEPITA paper's Table 1.
Epsilons are in brackets. The paper states 0.3 for its attacks; its code has 0.1, and lets pixels fall below black,
where the other attacks stay in [0, 1]."""

from creditflow.reporting.tables._pepita import pepita_table

TABLE = pepita_table("table1", "natural", source="summary published", published="pepita")
