"""Published numbers with an uncertainty of their own: the binomial interval of the number of images they betray."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from creditflow.errors import UserError, one_line

COLUMNS = ["paper", "table", "backbone", "dataset", "rule", "attack", "metric", "percent"]

#: The share of a table's values that must lie on a grid: papers have misprints.
_SHARE = 0.95

_MOST_IMAGES = 200  # a grid finer than half a percent cannot be told from arbitrary values of two decimals


def read_published(path: Path) -> pd.DataFrame:
    """Returns the numbers of a CSV file with the inferred number of images `n` (NaN if none) and 95% bounds `low`, `high`.

    Raises UserError if the file is missing, lacks a column, or holds something that is not a percentage.
    """
    try:
        frame = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a table of published numbers ({one_line(error)})") from error
    if list(frame.columns) != COLUMNS:
        raise UserError(f"{path} must have the columns {', '.join(COLUMNS)}")
    try:
        sizes = frame.groupby("table").percent.agg(lambda texts: images_behind(list(texts)))
        frame = frame.assign(n=frame.table.map(sizes), value=[float(text) / 100 for text in frame.percent])
    except ValueError as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    bounds = [_interval(value, n) for value, n in zip(frame.value, frame.n, strict=True)]
    return frame.assign(low=[low for low, _ in bounds], high=[high for _, high in bounds])


def images_behind(percents: Sequence[str]) -> float:
    """Returns the smallest n such that nearly all values, as printed, are k / n rounded or truncated; NaN if there is none.

    Raises ValueError for a text that is not a percentage.
    """
    values = [(_percentage(text), Fraction(1, 10 ** len(text.partition(".")[2]))) for text in percents]
    for n in range(2, _MOST_IMAGES + 1):
        fitting = sum(_on_grid(value, unit, n) for value, unit in values)
        if fitting >= _SHARE * len(values):
            return float(n)
    return float("nan")


def _percentage(text: str) -> Fraction:
    value = Fraction(text)
    if not 0 <= value <= 100:
        raise ValueError(f"{text} is not a percentage")
    return value


def _on_grid(value: Fraction, unit: Fraction, n: int) -> bool:
    nearest = Fraction(round(value * n / 100) * 100, n)
    return abs(nearest - value) < unit


def _interval(value: float, n: float) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for k of n."""
    if n != n:
        return float("nan"), float("nan")
    found = binomtest(round(value * n), int(n)).proportion_ci(method="exact")
    return float(found.low), float(found.high)
