"""Published numbers with an uncertainty of their own: the binomial interval of the number of images they rest on."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

from creditflow.core.errors import UserError, one_line
from creditflow.core.plugins import suggestion
from creditflow.reporting.names import display, span
from creditflow.reporting.sources import DEFAULT_PUBLISHED

#: Columns of a file of published numbers; it may have more: `n`, the images behind a number, where its source says so, and `spread`,
#: the standard deviation over seeds, as printed. Numbers are in percent, but a `training_loss`, which is what it is.
_MORE = ["n", "spread"]
COLUMNS = ["paper", "table", "backbone", "dataset", "rule", "attack", "metric", "percent"]

#: Metrics, and whether they are proportions of images, which lie on a grid and have a binomial interval.
_METRICS = {"accuracy": True, "robust_accuracy": True, "error": True, "map": False, "training_loss": False}

#: The share of a table's values that must lie on a grid: papers have misprints.
_SHARE = 0.95

_MOST_IMAGES = 200  # a grid finer than half a percent cannot be told from arbitrary values of two decimals


@dataclass(frozen=True)
class PublishedSettings:
    """published: the numbers to show, a file in config/published without its suffix."""

    published: str = DEFAULT_PUBLISHED


def read_published(path: Path) -> pd.DataFrame:
    """Returns the numbers of a CSV file, each as a share (`value`) with the number of images `n` and 95% bounds `low`, `high`.

    Where the file does not say it, `n` is inferred from a table's proportions (`inferred` is true), NaN if they betray none.
    Raises UserError if the file is missing, lacks a column, or holds something that is not a percentage or not a known metric.
    """
    try:
        frame = pd.read_csv(path, dtype=str)
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


def shares(published: pd.DataFrame) -> pd.DataFrame:
    """Returns the numbers that are percentages."""
    return published[published.metric != "training_loss"]


def as_accuracy(published: pd.DataFrame) -> pd.DataFrame:
    """Returns the numbers with error rates turned into accuracies, bounds and all; the others as they are."""
    error = published.metric == "error"
    mirror = {"value": "value", "low": "high", "high": "low"}
    turned = {name: published[name].where(~error, 1 - published[other]) for name, other in mirror.items()}
    return published.assign(**turned, metric=published.metric.where(~error, "accuracy"))


def sample_sizes(published: pd.DataFrame) -> str:
    """Returns a sentence that says on how many images the numbers of each table rest, and how that is known."""
    parts = []
    for table, rows in published.groupby("table", sort=False):
        known = rows[rows.n.notna()]
        how = " or ".join(sorted({"inferred" if one else "stated" for one in known.inferred}))
        parts.append(f"{display(str(table))}: {f'{span(known.n)} ({how})' if len(known) else 'not known'}")
    return f"Images behind the numbers of table {', '.join(parts)}."
