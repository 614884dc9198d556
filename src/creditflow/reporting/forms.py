"""The seal of a table or figure: one JSON file beside its forms. It imports nothing heavy.

CSV, Markdown, LaTeX, HTML, PDF, SVG and PNG have no place for a checksum that all of their readers would leave alone.
So `<name>.json` holds the hash of each form, the hash of each file that the forms were made from, and what they show.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.identity import check_identity, make_again

#: The forms of a table, and those of a figure.
TABLE = (".csv", ".md", ".tex", ".html")
FIGURE = (".pdf", ".svg", ".png")

_FORMAT = 1


def write_seal(stem: Path, forms: Iterable[str], identity: Mapping[str, object], frames: Sequence[Path]) -> None:
    """Writes `<stem>.json`, after the forms.

    Args:
        stem: path of the table or figure, with any suffix.
        forms: the suffixes of its forms.
        identity: what it shows: the experiment, and the name of the table or figure.
        frames: the files that it was made from, in their order.
    """
    content = {
        "format": _FORMAT,
        "identity": dict(identity),
        "frames": [files.file_sha256(path) for path in frames],
        "sha256": {form: files.file_sha256(stem.with_suffix(form)) for form in forms},
    }
    files.write_sealed_json(stem.with_suffix(".json"), content)


def check_forms(stem: Path, identity: Mapping[str, object], frames: Sequence[Path] | None = None) -> None:
    """Raises UserError if a form of a table or figure is damaged or missing, or shows something else.

    Args:
        stem: path of the table or figure, with any suffix.
        identity: what it must show.
        frames: the files that it must have been made from; None for any.
    """
    seal = stem.with_suffix(".json")
    if not seal.exists():
        raise UserError(f"{seal} is missing, so nothing says that {seal.stem} is whole; {make_again(seal)}")
    content = files.read_json(seal, "the seal of a table or figure")
    hashes = content.get("sha256") if isinstance(content, dict) else None
    if not isinstance(hashes, dict) or set(hashes) not in ({*TABLE}, {*FIGURE}) or content.get("format") != _FORMAT:
        raise UserError(f"{seal} is not the seal of a table or figure of this version; {make_again(seal)}")
    check_identity(seal, "the seal", content.get("identity"), identity)
    for form, expected in sorted(hashes.items()):
        path = seal.with_suffix(form)
        if not path.exists():
            raise UserError(f"{path} is missing; {make_again(path)}")
        if files.file_sha256(path) != expected:
            raise UserError(f"{path} is damaged or was edited: its hash is not that in {seal.name}; {make_again(path)}")
    if frames is not None and content.get("frames") != [files.file_sha256(path) for path in frames]:
        names = ", ".join(map(str, frames))
        raise UserError(f"{stem} was made from other content than {names} has now; {make_again(seal)}")
