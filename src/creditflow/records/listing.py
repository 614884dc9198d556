"""Records by a list of their paths. Each must be the one that belongs at its path, and there may be no second one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import as_path, fingerprint, read_plain
from creditflow.core.identity import check_identity, described, make_again
from creditflow.records.record import Keys, Record, read_record

#: The keys that a record at a path must have; None for a path that tells nothing.
KeysOf = Callable[[Path], Mapping[str, object] | None]


def read_listed(listing: Path, keys_of: KeysOf = lambda path: None) -> list[Record]:
    """Reads the records that a text file names, one path on each line, in that order.

    Raises UserError as `listed_paths` and `read_records` do.
    """
    return read_records(listed_paths(listing), keys_of)


def listed_paths(listing: Path) -> list[Path]:
    """Returns the paths that a text file names, one on each line, in that order.

    Blanks around a path do not count, unless a file is really called so; `~` and `$VAR` mean what they mean in a shell.

    Raises UserError if it is no list or an empty one.
    """
    try:
        lines = read_plain(listing).decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{listing} is not a list of records ({one_line(error)}); write one path on each line, as UTF-8"
        ) from error
    paths = [Path(line) if Path(line).exists() else as_path(line.strip()) for line in lines if line.strip()]
    if not paths:
        raise UserError(f"{listing} names no record; write one path on each line")
    return paths


def read_records(paths: Sequence[Path], keys_of: KeysOf = lambda path: None) -> list[Record]:
    """Reads records, in their order.

    Raises UserError as `read_record` does, for a record that is another than the one that belongs at its path, for two
    records with the same keys, and for two of one network that were measured on different weights or data.
    """
    records: dict[Keys, Record] = {}
    for path in paths:
        record = read_record(path)
        check_identity(path, "the record", asdict(record.keys), keys_of(path))
        if record.keys in records:
            raise UserError(
                f"{path} and {records[record.keys].path} are both the record of {described(asdict(record.keys))};"
                f" name one of them, or {make_again(path)}"
            )
        records[record.keys] = record
    for what, keys in _SAME.items():
        _check_same(records.values(), what, keys)
    return list(records.values())


#: What records with the same values of some keys must have been measured on, as their settings say it.
_SAME = {
    "model": ("experiment", "task", "dataset", "backbone", "rule", "seed"),
    "data": ("experiment", "dataset"),
}


def _check_same(records: Iterable[Record], what: str, keys: Sequence[str]) -> None:
    """Raises UserError for two records that were measured on different models, or data: one was made again since."""
    first: dict[tuple[object, ...], tuple[Record, object]] = {}
    for record in records:
        measured = record.content.get("settings", {}).get(what)
        stated = measured.get("weights") if isinstance(measured, Mapping) else measured
        if stated is None:
            continue
        names = asdict(record.keys)
        other, expected = first.setdefault(tuple(names[key] for key in keys), (record, stated))
        if stated != expected:
            raise UserError(
                f"{other.path} and {record.path} were not measured on the same {what} (SHA-256 {str(expected)[:12]} and"
                f" {str(stated)[:12]}); make both again with"
                f" `snakemake --cores all --force {other.path} {record.path}`"
            )


def content_hash(records: Sequence[Record]) -> str:
    """Returns a short hash of what records say, in any order: keys, metrics and outcomes, but not their provenance."""
    return fingerprint(
        sorted(
            [list(asdict(record.keys).values()), record.content["metrics"], record.content["outcomes"]["sha256"]]
            for record in records
        )
    )
