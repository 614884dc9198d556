"""Frames that are made from records, such as `records.parquet` and `audit.parquet`: what they say of themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from creditflow.core import files
from creditflow.records.listing import content_hash
from creditflow.records.record import Record

if TYPE_CHECKING:
    import pandas as pd


def write_frame(path: Path, frame: "pd.DataFrame", kind: str, records: Sequence[Record]) -> None:
    """Writes a frame of an experiment, which says what it is and which records it was made from.

    Args:
        path: the Parquet file.
        frame: its rows.
        kind: "records", "summary" or "audit".
        records: the records that it was made from.
    """
    experiments = sorted({record.keys.experiment for record in records})
    frame.attrs = {"identity": {"experiment": ", ".join(experiments), "frame": kind, "records": content_hash(records)}}
    files.write_parquet(path, frame)
