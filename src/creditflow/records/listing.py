"""Records by a list of their paths. Each must be the one that belongs at its path, and there may be no second one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import fingerprint
from creditflow.core.identity import check_identity, described, make_again
from creditflow.records.record import Keys, Record, read_record

#: The keys that a record at a path must have; None for a path that tells nothing.
KeysOf = Callable[[Path], Mapping[str, object] | None]


def read_listed(listing: Path, keys_of: KeysOf = lambda path: None) -> list[Record]:
    """Reads the records that a text file names, one path on each line, in that order.

    Raises UserError if it is no list or an empty one, and as `read_records` does.
    """
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{listing} is not a list of records ({one_line(error)})") from error
    paths = [Path(line) for line in lines if line.strip()]
    if not paths:
        raise UserError(f"{listing} names no record; write one path on each line")
    return read_records(paths, keys_of)


def read_records(paths: Sequence[Path], keys_of: KeysOf = lambda path: None) -> list[Record]:
    """Reads records, in their order.

    Raises UserError as `read_record` does, for a record that is another than the one that belongs at its path, and for
    two records with the same keys.
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
    return list(records.values())


def content_hash(records: Sequence[Record]) -> str:
    """Returns a short hash of what records say, in any order: keys, metrics and outcomes, but not their provenance."""
    return fingerprint(
        sorted(
            [list(asdict(record.keys).values()), record.content["metrics"], record.content["outcomes"]["sha256"]]
            for record in records
        )
    )
