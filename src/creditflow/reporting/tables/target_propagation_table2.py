"""Training loss of the last epoch, a mean over batches before each step (the target-propagation paper's Table 2). BP of
the paper ran in float32, where a loss below 1e-7 is rounding, the others in float64; ours are computed so that float32
holds them."""

import pandas as pd

from creditflow.reporting.tables._target_propagation import table


def _losses(records: pd.DataFrame) -> pd.DataFrame:
    rows = records[records.metric == "loss"]
    return rows[rows.epoch == rows.groupby(["backbone", "dataset", "rule", "seed"]).epoch.transform("max")]


TABLE = table(
    _losses, "training_loss", lambda value: f"{value:.2e}", source="records published", published="target_propagation"
)
