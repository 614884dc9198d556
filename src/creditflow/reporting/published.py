"""Published numbers and their uncertainty: the binomial interval of the number of images on which they rest."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.core.files import read_csv
from creditflow.reporting.names import display, span

#: Columns that a file of published numbers may have: `n`, the number of images behind a number where its source says
#: it, and `spread`, the standard deviation over seeds, as printed.
_MORE = ["n", "spread"]

#: Columns that such a file has. Numbers are in percent; only a `training_loss` is given as it is.
COLUMNS = ["paper", "table", "backbone", "dataset", "rule", "attack", "metric", "percent"]

#: Metrics, and whether they are proportions of images, which lie on a grid and have a binomial interval.
_METRICS = {"accuracy": True, "robust_accuracy": True, "error": True, "map": False, "training_loss": False}

#: The share of a table's values that must lie on a grid: papers have misprints.
_SHARE = 0.95

#: The largest number of images that is inferred. A grid finer than half a percent looks like arbitrary values with two
#: digits after the point.
_MOST_IMAGES = 200


def read_published(path: Path) -> pd.DataFrame:
    """Reads a CSV file of published numbers.

    Returns:
        Its rows with more columns: each number as a share (`value`), the number of images behind it (`n`) and the
        bounds of its 95% interval (`low`, `high`). Where the file does not state `n`, it is inferred from all
        proportions of the same table, and `inferred` is true; it is NaN if nothing can be inferred.

    Raises:
        UserError: if the file is missing, lacks a column, or has a value that is not a percentage or an unknown metric.
    """
    try:
        frame = read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a table of published numbers ({one_line(error)}); see config/published/README.md"
        ) from error
    if list(frame.columns) != [*COLUMNS, *(name for name in _MORE if name in frame)]:
        raise UserError(f"{path} must have the columns {', '.join(COLUMNS)}, and may have n and spread")
    try:
        units = frame.metric.map(lambda metric: 1 if metric == "training_loss" else 100)
        frame = frame.assign(
            value=[float(_percentage(text)) / unit for text, unit in zip(frame.percent, units, strict=True)]
        )
        frame = _with_sizes(frame)
        spread = pd.to_numeric(frame.spread) if "spread" in frame else pd.Series(float("nan"), frame.index)
        frame = frame.assign(spread=spread / units)
    except ValueError as error:
        raise UserError(f"{path}: {one_line(error)}") from error
    bounds = [_interval(value, n) for value, n in zip(frame.value, frame.n, strict=True)]
    return frame.assign(low=[low for low, _ in bounds], high=[high for _, high in bounds])


def _with_sizes(frame: pd.DataFrame) -> pd.DataFrame:
    unknown = sorted(set(frame.metric) - set(_METRICS))
    if unknown:
        raise ValueError(f"unknown metric {unknown[0]!r}{suggestion(str(unknown[0]), sorted(_METRICS))}")
    proportion = frame.metric.map(_METRICS).astype(bool)
    stated = pd.to_numeric(frame.n) if "n" in frame else pd.Series(float("nan"), frame.index)
    if (stated < 1).any() or (stated[~proportion].notna()).any():
        raise ValueError("n must be a number of images, and only proportions of images have one")
    behind = frame[proportion].groupby("table").percent.agg(lambda texts: images_behind(list(texts)))
    inferred = frame.table.map(behind).where(proportion)
    return frame.assign(n=stated.fillna(inferred).astype(float), inferred=stated.isna() & inferred.notna())


def images_behind(percents: Sequence[str]) -> float:
    """Returns the smallest n such that nearly all values, as printed, are k / n, rounded or truncated.

    It is NaN if no n fits.

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
    """Returns Clopper and Pearson's exact 95% interval of a share of n images; NaN without n."""
    if n != n:
        return float("nan"), float("nan")
    interval = binomtest(round(value * n), int(n)).proportion_ci(method="exact")
    return float(interval.low), float(interval.high)


def shares(published: pd.DataFrame) -> pd.DataFrame:
    """Returns the numbers that are percentages."""
    return published[published.metric != "training_loss"]


def as_accuracy(published: pd.DataFrame) -> pd.DataFrame:
    """Returns the numbers with error rates, and their bounds, turned into accuracies; the others stay as they are."""
    error = published.metric == "error"
    mirror = {"value": "value", "low": "high", "high": "low"}
    turned = {name: published[name].where(~error, 1 - published[opposite]) for name, opposite in mirror.items()}
    return published.assign(**turned, metric=published.metric.where(~error, "accuracy"))


def sample_sizes(published: pd.DataFrame) -> str:
    """Returns a sentence that says on how many images the numbers of each table rest, and how that is known."""
    parts = []
    for table, rows in published.groupby("table", sort=False):
        known = rows[rows.n.notna()]
        how = " or ".join(sorted({"inferred" if inferred else "stated" for inferred in known.inferred}))
        parts.append(f"{display(str(table))}: {f'{span(known.n)} ({how})' if len(known) else 'not known'}")
    return f"Images behind the numbers of table {', '.join(parts)}."
