"""Whether a folder of raw files is that of the dataset: files of several datasets have the same names."""

from collections.abc import Mapping
from pathlib import Path

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.identity import make_again


def check_origin(raw: Path, dataset: str, checksums: Mapping[str, str]) -> None:
    """Compares the note that `fetch` left in a folder of raw files with the checksums of a dataset.

    A folder without a note passes: the user has put the files there.

    Raises UserError if the note is broken, or if the files are those of another dataset.
    """
    note = raw / "origin.json"
    if not note.exists():
        return
    origin = files.read_json(note, "what fetch notes of a dataset", sealed=False)
    noted = origin.get("checksums", {}) if isinstance(origin, dict) else None
    if noted != dict(checksums):
        raise UserError(f"{raw} does not hold the files of {dataset}, but those of {_named(noted)}; {make_again(raw)}")


def _named(noted: object) -> str:
    """Returns what a note says of its files, in words."""
    return ", ".join(map(str, noted)) + " with other checksums" if isinstance(noted, dict) and noted else "no dataset"
