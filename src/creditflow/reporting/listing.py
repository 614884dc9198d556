"""A table whose rows are rows of a frame, for what is not one accuracy per rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.reporting.render import escape, write_forms


@dataclass(frozen=True)
class Listing:
    """A table of texts. Its settings are those of `reporting/tables/settings`.

    Attributes:
        select: (frame of each source, settings) -> the rows that it shows. The CSV file has them with all digits.
        show: (selected rows, settings) -> their texts. The names of the columns become the table's head.
        note: selected rows -> the text that follows the caption.
        source: the frames that it shows, as words: those of the experiment (summary, audit, records, populations,
            outcomes, gallery), and `published` for the file of published numbers that the setting `published` chooses.
        published: the file of published numbers if the settings do not choose one.
    """

    select: Callable[..., pd.DataFrame]
    show: Callable[[pd.DataFrame, Any], pd.DataFrame]
    note: Callable[[pd.DataFrame], str]
    source: str = "summary"
    published: str | None = None

    def write(self, frames: Sequence[pd.DataFrame], settings: Any, caption: str, stem: Path) -> None:
        """Writes `<stem>.csv`, `.md`, `.tex` and `.html`. Raises UserError if there is nothing to show."""
        selected = self.select(*frames, settings)
        if selected.empty:
            raise UserError(f"no record for table {stem.name}; check that the experiment makes what the table shows")
        shown = self.show(selected, settings)
        files.write_atomically(stem.with_suffix(".csv"), selected.to_csv(index=False, lineterminator="\n").encode())

        def escaped(suffix: str) -> pd.DataFrame:
            return shown.map(lambda text: escape(text, suffix)).rename(columns=lambda text: escape(text, suffix))

        write_forms(escaped, f"{caption} {self.note(selected)}", stem)
