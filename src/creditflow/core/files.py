"""Files that are whole or absent, and their hashes."""

import errno
import fcntl
import glob
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from creditflow.core.errors import UserError, one_line
from creditflow.core.tables import check_csv, check_table

if TYPE_CHECKING:
    import pandas as pd


#: The most bytes of a file of text, such as JSON; the history of a population of thousands has some hundred megabytes.
_MAX_TEXT = 1 << 30
#: The most bytes of a CSV file; the largest that the project ships or exports has some hundred kilobytes.
_MAX_CSV = 64 << 20


def check_plain(path: Path) -> None:
    """Raises OSError for a file that is no plain one. A pipe would be waited for, and a device may have no end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))


def read_plain(path: Path, limit: int | None = None) -> bytes:
    """Returns the content of a plain file. Raises OSError if it is none, or has more than `limit` bytes."""
    check_plain(path)
    if limit is not None and path.stat().st_size > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return path.read_bytes()


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

    Without a seal nothing says that an object is what was written, so it does not count as whole. Neither does a value
    that is not an object.
    """
    return isinstance(value, dict) and value.pop("seal", None) == seal(value)["seal"]


def write_parquet(path: Path, frame: "pd.DataFrame") -> None:
    """Writes a table as Parquet, atomically, together with a checksum of its rows and of its `attrs`.

    The `attrs` are JSON-like values; they say what the table is.
    """
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    sealed = _read_parquet(buffer)  # with the types that a reader will get
    sealed.attrs = frame.attrs | {"seal": _table_sha256(sealed, frame.attrs)}
    buffer = io.BytesIO()
    sealed.to_parquet(buffer, index=False)
    write_atomically(path, buffer.getvalue())


def read_parquet(path: Path) -> "pd.DataFrame":
    """Reads what `write_parquet` wrote, its `attrs` included.

    Raises ValueError if it is damaged or has no seal, and OSError if it cannot be read.
    """
    content = read_plain(path)
    try:
        frame = _read_parquet(io.BytesIO(content))
        whole = frame.attrs.pop("seal", None) == _table_sha256(frame, frame.attrs)
    except Exception as error:  # with damaged bytes pyarrow and pandas raise errors of many types
        raise ValueError(one_line(error)) from error
    if not whole:
        raise ValueError("its content is not what was written")
    return frame


def read_csv(path: Path, **options: Any) -> "pd.DataFrame":
    """Reads a table of text with the options of `pandas.read_csv`.

    Raises OSError if the file cannot be read, and ValueError if it is no table or has more than a table has.
    """
    import pandas as pd

    content = read_plain(path, _MAX_CSV)
    check_csv(content)
    table: pd.DataFrame = pd.read_csv(io.BytesIO(content), **options)
    return table


def _read_parquet(file: io.BytesIO) -> "pd.DataFrame":
    import pandas as pd

    check_table(file)
    file.seek(0)
    return pd.read_parquet(file)


def _table_sha256(frame: "pd.DataFrame", attrs: Mapping[Any, Any]) -> str:
    from pandas.util import hash_pandas_object

    rows = hash_pandas_object(frame, index=False).to_numpy().tobytes()
    return sha256(rows + repr(list(frame.dtypes.items())).encode() + json.dumps(dict(attrs), sort_keys=True).encode())


def read_json(
    path: Path, what: str, *, sealed: bool = True, advice: str = "move it away and run the same command again"
) -> Any:
    """Reads JSON and removes its seal.

    Args:
        path: the file.
        what: what it should have been, for messages.
        sealed: whether an object must have a seal.
        advice: what the messages tell the user to do. The default is for files that a stage makes again.

    Raises:
        UserError: if the file is missing, broken or changed, or if it lacks the seal that it must have.
    """
    try:
        value = json.loads(read_plain(path, _MAX_TEXT))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is not there, where {what} is expected; make it first, or name another file"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not {what} ({one_line(error)}); {advice}") from error
    if not isinstance(value, dict) or not (sealed or "seal" in value):
        return value
    if "seal" not in value:
        raise UserError(f"{path} has no seal: it was edited, or an older version wrote it; {advice}")
    if not is_whole(value):
        raise UserError(f"{path} is damaged or was edited: its seal is not that of its content; {advice}")
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
    """Returns the hexadecimal SHA-256 of a plain file."""
    check_plain(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Returns a short hash of a JSON-like value; it is the same in every process."""
    return sha256(json.dumps(value, sort_keys=True).encode())[:16]


def as_path(text: str) -> Path:
    """Returns the path that a person means: `~` is the home folder, and `$VAR` a variable of the environment.

    Blanks around it do not count. A file that is really called so comes first. A variable or a user that is not known
    stays as it is written.
    """
    path = Path(text)
    if path.exists():
        return path
    return Path(os.path.expanduser(os.path.expandvars(text.strip())))  # noqa: PTH111


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """Returns the files that fit a glob pattern below a folder, sorted, as the project means them.

    Left out are what editors and systems leave behind (see `is_left_behind`), also in the name of a folder on the way,
    folders that are called like files, and links to nothing. A folder that is not there has no files.
    """
    paths = (path for path in folder.glob(pattern) if path.is_file())
    return sorted(path for path in paths if not any(map(is_left_behind, path.relative_to(folder).parts)))


#: What systems and archivers put into folders of their own accord, in small letters.
_OF_SYSTEMS = ("__pycache__", "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found")

#: Endings of what editors, patches and downloads leave, in small letters.
_LEFT_ENDINGS = ("~", ".swp", ".swo", ".bak", ".orig", ".rej", ".tmp", ".part", ".crdownload")


def is_left_behind(name: str) -> bool:
    """Returns whether the name of a file or folder says that it is hidden, temporary, a backup or byte code.

    For example, `.x.py`, `._x.py`, `.#x.py`, `#x.py#`, `x.py~`, `Thumbs.db` and `__pycache__`.
    """
    small = name.lower()
    return small.startswith((".", "#", "~$", "$recycle")) or small.endswith(_LEFT_ENDINGS) or small in _OF_SYSTEMS


def warn(message: str) -> None:
    """Prints a one-line warning to stderr."""
    print(f"warning: {message}", file=sys.stderr, flush=True)
