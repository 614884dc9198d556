"""Files that are whole or absent, and their hashes."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from creditflow.errors import UserError, one_line


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment `path` holds all of the content or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys, atomically; NaN and infinities are refused (ValueError)."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path, what: str) -> Any:
    """Reads JSON. Raises UserError that says `what` the file should have been if it is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not {what} ({one_line(error)}); delete it and run the same command again") from error


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """Yields a scratch folder that takes the place of `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sha256(content: bytes) -> str:
    """Returns the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Returns a short hash of a JSON-like value, the same in every process; used as configuration hash."""
    return sha256(json.dumps(value, sort_keys=True).encode())[:16]


def warn(message: str) -> None:
    """Prints a one-line warning to stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
