"""How much a table may be when it is read.

A Parquet file of a kilobyte can promise billions of cells, or long ones. Readers take long for many columns.
"""

import importlib
import io
from typing import Any

#: The most cells of a table (a million records with fifty columns), and the most bytes of all of them.
_MAX_CELLS, _MAX_TABLE = 50_000_000, 2 << 30
#: The most columns of a table; readers take time for each.
_MAX_COLUMNS = 1000
#: The number of rows that are looked at a time.
_ROWS = 1024


def check_table(file: io.BytesIO) -> None:
    """Raises ValueError for a table that would expand: a kilobyte can promise billions of equal cells, or long ones."""
    parquet = importlib.import_module("pyarrow.parquet")
    facts = parquet.read_metadata(file)
    if facts.num_rows * max(facts.num_columns, 1) > _MAX_CELLS:
        raise ValueError(f"it promises {facts.num_rows:,} rows of {facts.num_columns} columns, more than a table has")
    _check_columns(facts.num_columns)
    columns = [facts.schema.column(number) for number in range(facts.num_columns)]
    if any(column.max_repetition_level for column in columns):
        raise ValueError("its columns hold lists, which no table has")
    # The facts of single chunks are not asked for: pyarrow ends the process where those are damaged.
    if sum(facts.row_group(number).total_byte_size for number in range(facts.num_row_groups)) > _MAX_TABLE:
        raise ValueError("it would expand to more than a table has")
    # Texts that repeat stay references here, so a text of a megabyte that stands a million times is one megabyte.
    names = [column.path for column in columns]
    file.seek(0)
    whole = parquet.ParquetFile(file, read_dictionary=names)
    if sum(map(_expanded_size, whole.iter_batches(_ROWS))) > _MAX_TABLE:
        raise ValueError("its texts would expand to more than a table has")


def check_csv(content: bytes) -> None:
    """Raises ValueError for a CSV file whose first row has more columns than a table has."""
    _check_columns(content.partition(b"\n")[0].partition(b"\r")[0].count(b",") + 1)


def _check_columns(n_columns: int) -> None:
    if n_columns > _MAX_COLUMNS:
        raise ValueError(f"it has {n_columns:,} columns, more than the {_MAX_COLUMNS:,} that a table may have")


def _expanded_size(batch: Any) -> int:
    """Returns the bytes of a batch of rows when each text that it refers to is written out."""
    arrow, compute = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.compute"))
    size: int = batch.nbytes
    for column in batch.columns:
        if arrow.types.is_dictionary(column.type):
            lengths = compute.binary_length(column.dictionary).take(column.indices)
            size += compute.sum(lengths).as_py() or 0
    return size
