"""What the audit's numbers measure: accuracy on images, or the mean average precision of queries."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Measure:
    """What an audit compares.

    Attributes:
        prefix: how columns of the audit begin that hold it for one attack and gradient.
        title: what it is called at the head of a column.
        under_attack: what axes call it.
        examples: what it is measured on.
    """

    prefix: str
    title: str
    under_attack: str
    examples: str

    def columns(self, audit: pd.DataFrame) -> list[str]:
        """Returns the columns that hold it for one attack and gradient."""
        return [column for column in audit.columns if column.startswith(self.prefix)]


_ACCURACY = Measure("accuracy ", "Accuracy", "robust accuracy", "images")

_MEAN_AVERAGE_PRECISION = Measure("map ", "mAP", "mAP under attack", "queries")


def measure_of(audit: pd.DataFrame) -> Measure:
    """Returns what an audit compares: the mAP of a retrieval, or else accuracy."""
    return _MEAN_AVERAGE_PRECISION if _MEAN_AVERAGE_PRECISION.columns(audit) else _ACCURACY
