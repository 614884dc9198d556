"""Files that are whole or absent, and their hashes."""

import fcntl
import glob
import hashlib
import io
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditflow.core.errors import UserError, one_line

if TYPE_CHECKING:
    import pandas as pd


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that at any moment `path` holds either the whole content or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part(path: Path) -> Path:
    """Returns a scratch name beside `path` that no other process uses. Removes scratch files of dead processes."""
    prefix = f".{path.name}.{platform.node()}-"
    for old in path.parent.glob(f"{glob.escape(prefix)}*.part"):
        pid = old.name.removeprefix(prefix).removesuffix(".part")
        if pid.isdigit() and not _runs(pid):
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
    return path.with_name(f"{prefix}{os.getpid()}.part")


def _runs(pid: str) -> bool:
    try:
        state = Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in "ZX"  # dead, but the parent has not asked for its status: this is common in containers


@contextmanager
def only_one_writer(path: Path) -> Iterator[None]:
    """Holds a kernel lock beside `path`. Raises UserError if another process holds it.

    A workflow that was killed may leave a job running. A job that is started later must not write the same checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process works on {path}; wait until it ends, or stop it, then run the same command again"
            ) from None
        except OSError:
            warn(f"this file system has no locks: make sure that no other process works on {path}")
        yield
        lock.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with sorted keys, atomically. Raises ValueError for NaN and infinities."""
    write_atomically(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Returns indented JSON with sorted keys. Raises ValueError for NaN and infinities."""
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write_sealed_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON object together with its checksum under the key `seal`, by which `read_json` notices any change."""
    write_json(path, seal(value))


def seal(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON object together with its checksum under the key `seal`."""
    return value | {"seal": sha256(json.dumps(value, sort_keys=True).encode())}


def is_whole(value: Any) -> bool:
    """Removes the key `seal` from a JSON object and returns whether the seal fits the rest.

    An object without a seal counts as whole; a value that is not an object does not.
    """
    if not isinstance(value, dict):
        return False
    checksum = value.pop("seal", None)
    return checksum is None or checksum == seal(value)["seal"]


def write_parquet(path: Path, frame: "pd.DataFrame") -> None:
    """Writes a table as Parquet, atomically, together with a checksum of its rows."""
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    sealed = _read_parquet(buffer)  # with the types that a reader will get
    sealed.attrs = {"seal": _rows_sha256(sealed)}
    buffer = io.BytesIO()
    sealed.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path) -> "pd.DataFrame":
    """Reads what `write_parquet` wrote. Raises ValueError if it is damaged, OSError if it cannot be read."""
    content = path.read_bytes()
    try:
        frame = _read_parquet(io.BytesIO(content))
        whole = frame.attrs.pop("seal", None) == _rows_sha256(frame)
    except Exception as error:  # with damaged bytes pyarrow and pandas raise errors of many types
        raise ValueError(one_line(error)) from error
    if not whole:
        raise ValueError("its content is not what was written")
    return frame


def _read_parquet(file: io.BytesIO) -> "pd.DataFrame":
    import pandas as pd

    file.seek(0)
    return pd.read_parquet(file)


def _rows_sha256(frame: "pd.DataFrame") -> str:
    from pandas.util import hash_pandas_object

    return sha256(
        hash_pandas_object(frame, index=False).to_numpy().tobytes() + repr(list(frame.dtypes.items())).encode()
    )


def read_json(path: Path, what: str) -> Any:
    """Reads JSON and removes a seal.

    Raises UserError if the file is missing, broken or changed; `what` says in the message what it should have been.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not {what} ({one_line(error)}); delete it and run the same command again"
        ) from error
    if isinstance(value, dict) and not is_whole(value):
        raise UserError(
            f"{path} is damaged or was edited: its seal is not that of its content;"
            " delete it and run the same command again"
        )
    return value


@contextmanager
def folder_atomically(path: Path) -> Iterator[Path]:
    """Yields a scratch folder. It takes the place of `path` if the block ends without an error; else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.mkdir()
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sha256(content: "bytes | memoryview") -> str:
    """Returns the hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Returns a short hash of a JSON-like value; it is the same in every process."""
    return sha256(json.dumps(value, sort_keys=True).encode())[:16]


def warn(message: str) -> None:
    """Prints a one-line warning to stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
