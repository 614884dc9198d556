"""Collects records into the frames that tables and figures are made from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.core.identity import check_identity
from creditflow.records.listing import KeysOf, read_records
from creditflow.records.record import Metric, Record
from creditflow.reporting.exact_rules import with_feedback
from creditflow.reporting.published import read_published
from creditflow.verdict.statistics import INTERVAL, accuracy
from creditflow.verdict.verdicts import COLUMNS as AUDIT_COLUMNS

_KEYS = ["experiment", "task", "dataset", "backbone", "rule", "seed", "attack", "gradient"]

#: Columns with which `records.parquet` begins: a row per record, metric, epsilon, epoch and rank or radius. The epoch
#: is missing where the metric was measured at the end of training.
RECORD_COLUMNS = [*_KEYS, "epsilon", "epoch", "at", "metric", "value", "n"]

_CELL = [key for key in _KEYS if key != "seed"]

#: Columns with which `summary.parquet` begins, one row per condition and epsilon, over all seeds.
SUMMARY_COLUMNS = [*_CELL, "norm", "epsilon", "metric", "value", "low", "high", "n_images", "n_seeds", "interval"]

#: Metrics that are means over examples, one for each row of these outcomes.
_OUTCOMES = {"accuracy": "correct", "robust_accuracy": "correct", "map": "ap", "map_tie_averaged": "ap_tie_averaged"}


def long_form(records: Sequence[Record]) -> pd.DataFrame:
    """Returns all metrics of all records, sorted by their keys; the columns are `RECORD_COLUMNS`, and `chance`."""
    rows = [asdict(record.keys) | asdict(metric) for record in records for metric in record.metrics]
    types = {"epsilon": "float64", "epoch": "Int64", "at": "Int64", "value": "float64", "seed": "int64", "n": "int64"}
    frame = pd.DataFrame(rows, columns=RECORD_COLUMNS).astype(types)
    return _with_chance(frame.sort_values(RECORD_COLUMNS[:12], kind="stable", ignore_index=True), records)


def _with_chance(frame: pd.DataFrame, records: Iterable[Record]) -> pd.DataFrame:
    """Returns a frame with one more column, `chance`: the accuracy of the best constant answer on a dataset.

    The clean records of the dataset know it; it is NaN where none does.
    """
    known: dict[str, float] = {}
    for record in records:
        chance = record.content.get("checks", {}).get("chance")
        if chance is not None:
            known[record.keys.dataset] = max(float(chance), known.get(record.keys.dataset, 0.0))
    return frame.assign(chance=frame.dataset.map(known).astype("float64"))


def chance_of(rows: pd.DataFrame) -> float:
    """Returns the accuracy of the best constant answer on the dataset of some rows; NaN where nothing says it."""
    known = rows.chance.dropna() if "chance" in rows else pd.Series(dtype="float64")
    return float(known.max()) if len(known) else float("nan")


def summarize(records: Iterable[Record]) -> pd.DataFrame:
    """Returns the mean of each accuracy and average precision over seeds and images, with its interval.

    The columns are `SUMMARY_COLUMNS`, and `chance`, which figures show and CSV files do not have.

    Raises UserError if the seeds of a condition were not measured on the same images at the same epsilons.
    """
    records = list(records)
    cells: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        keys = asdict(record.keys)
        cells.setdefault(tuple(keys[key] for key in _CELL), []).append(record)
    rows = [row for cell, members in sorted(cells.items()) for row in _summarize_cell(cell, members)]
    return _with_chance(pd.DataFrame(rows, columns=SUMMARY_COLUMNS).astype({"epsilon": "float64"}), records)


def _summarize_cell(cell: tuple[str, ...], records: list[Record]) -> list[dict[str, object]]:
    means = [_means(record) for record in records]
    shapes = [[(metric.metric, metric.epsilon, len(row)) for metric, row in of_record] for of_record in means]
    for record, shape in zip(records[1:], shapes[1:], strict=True):
        if shape != shapes[0] or not _same_images(record, records[0]):
            raise UserError(
                f"{record.path} and {records[0].path} differ in epsilons or images;"
                " move both away and run the same command again"
            )
    rows = []
    for index, (metric, _) in enumerate(means[0]):
        outcomes = np.stack([of_record[index][1] for of_record in means])
        estimate = accuracy(outcomes)
        row: dict[str, object] = dict(zip(_CELL, cell, strict=True))
        row |= {
            "norm": records[0].content.get("settings", {}).get("norm", ""),
            "epsilon": metric.epsilon,
            "metric": metric.metric,
        }
        row |= {"value": estimate.value, "low": estimate.low, "high": estimate.high}
        row |= {"n_images": outcomes.shape[1], "n_seeds": len(records), "interval": INTERVAL}
        rows.append(row)
    return rows


def _means(record: Record) -> list[tuple[Metric, NDArray[np.generic]]]:
    """Returns the metrics that are means over examples, each with its outcomes (examples,)."""
    means = []
    for name in dict.fromkeys(_OUTCOMES.values()):
        metrics = [metric for metric in record.metrics if _OUTCOMES.get(metric.metric) == name]
        rows = record.outcomes.get(name, np.empty((0, 0)))
        if len(metrics) != len(rows):
            raise UserError(
                f"{record.path}: its outcomes do not belong to its metrics; move it away and run the same command again"
            )
        means += list(zip(metrics, rows, strict=True))
    return means


def _same_images(first: Record, second: Record) -> bool:
    no_image = np.empty(0)
    return np.array_equal(first.outcomes.get("example", no_image), second.outcomes.get("example", no_image))


#: Columns with which each frame of an experiment begins. The audit has more for its attacks, the others `chance`.
_FRAMES = {"records": RECORD_COLUMNS, "summary": SUMMARY_COLUMNS, "audit": AUDIT_COLUMNS}


def read_frames(
    paths: Sequence[Path], source: str, experiment: str | None = None, keys_of: KeysOf = lambda path: None
) -> list[pd.DataFrame]:
    """Reads what a table or figure shows.

    Rules whose feedback weights give the exact gradient, such as BP, have rows of both gradients in the summary and in
    the frame of outcomes, though they are attacked once (see `exact_rules`).

    Args:
        paths: the files.
        source: the names of the frames, in the order of the paths.
        experiment: the experiment that they must belong to; None for any.
        keys_of: the keys that a single record must have at its path.

    Raises:
        UserError: if the number of paths does not fit `source`, if a file belongs to another experiment, and in the
            cases of `read_frame`.
    """
    named = {} if experiment is None else {"experiment": experiment}
    if source == "gallery":
        return [_read_gallery(paths, named, keys_of)]
    if source == "populations":
        return [_read_populations(paths, named)]
    if source == "outcomes":
        return [_read_outcomes(paths, named, keys_of)]
    kinds = source.split()
    if len(paths) != len(kinds):
        raise UserError(f"give --frame {len(kinds)} file(s), in this order: {', '.join(kinds)}")
    frames = [read_frame(path, kind, named) for path, kind in zip(paths, kinds, strict=True)]
    return [with_feedback(frame) if kind == "summary" else frame for frame, kind in zip(frames, kinds, strict=True)]


def _read_outcomes(paths: Sequence[Path], named: Mapping[str, object], keys_of: KeysOf) -> pd.DataFrame:
    """Returns a row per record: its keys, and the record itself (`record`)."""
    records = read_records(paths, lambda path: {**named, **(keys_of(path) or {})})
    return with_feedback(pd.DataFrame([asdict(record.keys) | {"record": record} for record in records]))


def _read_gallery(paths: Sequence[Path], named: Mapping[str, object], keys_of: KeysOf) -> pd.DataFrame:
    """Returns a row per record of an attack on retrieval: its keys, epsilon, class names, pictures and labels."""
    rows = []
    for record in read_records(paths, lambda path: {**named, **(keys_of(path) or {})}):
        kinds = ("clean_", "attacked_", "query_")
        shown = {name: array for name, array in record.outcomes.items() if name.startswith(kinds)}
        if "query_labels" not in shown:
            raise UserError(f"{record.path} has no pictures with labels; move it away and run the same command again")
        epsilon, names = record.content["checks"]["shown_epsilon"], record.content["settings"]["class_names"]
        rows.append(asdict(record.keys) | {"epsilon": epsilon, "class_names": names} | shown)
    return pd.DataFrame(rows)


def _read_populations(paths: Sequence[Path], named: Mapping[str, object]) -> pd.DataFrame:
    """Returns a row per network of the populations: its keys, its scores, and where it is (`saved`, `index`)."""
    from creditflow.populations.storage import load_population

    rows = []
    for path in paths:
        keys = {"dataset": path.parts[-3], "backbone": path.parts[-2], "rule": path.stem}
        saved = load_population(path, {**named, **keys} if named else None)
        keys["rule"] = saved.content["rule"]
        rows += [
            keys | member | {"saved": saved, "index": index} for index, member in enumerate(saved.content["members"])
        ]
    return pd.DataFrame(rows)


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind.startswith("a") else f"a {kind}"


def read_frame(path: Path, kind: str, expected: Mapping[str, object] | None = None) -> pd.DataFrame:
    """Reads `records.parquet`, `summary.parquet`, `audit.parquet` or a file of published numbers.

    Raises UserError if it is not what `kind` says, or if its identity lacks what is expected of it.
    """
    if kind == "published":
        return read_published(path)
    try:
        frame = files.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} is not {_with_article(kind)} ({one_line(error)}); move it away and run the same command again"
        ) from error
    if list(frame.columns)[: len(_FRAMES[kind])] != _FRAMES[kind]:
        raise UserError(
            f"{path} is not {_with_article(kind)} of this version; move it away and run the same command again"
        )
    identity = frame.attrs.pop("identity", None)
    check_identity(path, "the frame", identity, {**expected, "frame": kind} if expected else None)
    return frame
