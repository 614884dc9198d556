"""Whether a folder of raw files is that of the dataset: files of several datasets have the same names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.identity import make_again


def check_origin(raw: Path, dataset: str, checksums: Mapping[str, str]) -> None:
    """Compares the note that `fetch` left in a folder of raw files, and the files, with the checksums of a dataset.

    A folder without a note passes: the user has put the files there. Archives that `fetch` has unpacked and removed
    are not looked for.

    Raises UserError if the note is broken, or if the files are damaged or those of another dataset.
    """
    note = raw / "origin.json"
    if not note.exists():
        return
    origin = files.read_json(note, "what fetch notes of a dataset", sealed=False)
    noted = origin.get("checksums", {}) if isinstance(origin, dict) else None
    if noted != dict(checksums):
        raise UserError(f"{raw} does not hold the files of {dataset}, but those of {_named(noted)}; {make_again(raw)}")
    for name, expected in checksums.items():
        if (raw / name).is_file() and _checksum(raw / name, expected) != expected:
            raise UserError(
                f"{raw / name} is damaged or belongs to another dataset: its checksum is not that of {dataset};"
                f" {make_again(raw)}"
            )


def _named(noted: object) -> str:
    """Returns what a note says of its files, in words."""
    return ", ".join(map(str, noted)) + " with other checksums" if isinstance(noted, dict) and noted else "no dataset"


def _checksum(path: Path, expected: str) -> str:
    """Returns the checksum of a file, of the kind that `expected` is of: `md5:` and an MD5, or a SHA-256."""
    if not expected.startswith("md5:"):
        return files.file_sha256(path)
    with path.open("rb") as file:
        return f"md5:{hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()}"
