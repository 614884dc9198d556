"""The seal of an exported folder: its `provenance.json` holds the SHA-256 of each other file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from creditflow.core import files
from creditflow.core.errors import UserError

_NAME = "provenance.json"


def write_export_seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes `provenance.json` with the facts and the hashes, after all other files of the folder."""
    paths = [path for path in files.visible_files(folder, "**/*") if path.name != _NAME]
    hashes = {path.relative_to(folder).as_posix(): files.file_sha256(path) for path in paths}
    files.write_sealed_json(folder / _NAME, {**facts, "files": hashes})


def check_exported(path: Path, folder: Path) -> bool:
    """Returns whether a file is the one that was exported into a folder; False if nothing says it.

    Exports of earlier versions have no hashes, and a page may be made without `provenance.json`. Raises UserError for a
    file that was damaged, edited or put there later, and for an export of another experiment than the folder's.
    """
    provenance, again = folder / _NAME, f"export {folder.name} again"
    if not provenance.exists():
        return False
    facts = files.read_json(provenance, "the provenance of an export", sealed=False, advice=again)
    if not isinstance(facts, dict):
        return False
    if has_hashes := "files" in facts:
        facts = files.read_json(provenance, "the provenance of an export", advice=again)
    if (stated := facts.get("experiment", folder.name)) != folder.name:
        raise UserError(f"{folder} has the export of experiment {stated}, where that of {folder.name} belongs; {again}")
    if not has_hashes:
        return False
    hashes = facts["files"] if isinstance(facts["files"], dict) else {}
    if hashes.get(path.relative_to(folder).as_posix()) != files.file_sha256(path):
        raise UserError(f"{path} is damaged, was edited, or is not of this export: {_NAME} has another hash; {again}")
    return True
