"""What an experiment made, as its export sees it. It imports nothing heavy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creditflow.records.listing import KeysOf


@dataclass(frozen=True)
class Finished:
    """What an experiment made: all that is exported of it, and what that was made from."""

    name: str
    description: str
    folder: Path
    """The folder of its results, which holds `records.parquet`, `tables/` and `figures/`."""
    tables: Mapping[str, Mapping[str, Any]]
    """The settings of each table."""
    figures: Sequence[str]
    """The figures' ids."""
    records: Sequence[Path]
    """All records."""
    sidecars: Sequence[Path]
    """The descriptions of all trained models or populations; they may have been deleted since."""
    sources: Mapping[tuple[str, str], Sequence[Path]]
    """The files that each table or figure shows, by ("table" or "figure", id)."""

    keys_of: KeysOf
    """The keys that a record at a path must have."""
    audit: Mapping[str, Any] | None = None
    """The experiment's `audit` keys; None where it has no audit."""

    @property
    def again(self) -> str:
        """What a user does to make something again."""
        return f"run `snakemake --cores all {self.name}`"
