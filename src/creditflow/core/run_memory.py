"""What the jobs of one run of the workflow need not compute again, such as the hash of a large file that all read.

The server that short jobs are forked from makes a folder for its run, names it in the environment, and removes it at
its end. In it, a text is kept together with the state of all files that it follows from: path, size, times and inode.
So a file that changes while the workflow runs is read again. By hand, on a cluster and in containers there is no such
folder; there, a process only remembers what it has computed itself.

Only hashes that say which file was used are kept. The checks that find damage (seals) read what they check each time.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from creditflow.core.files import check_plain, file_sha256, sha256, write_atomically

#: The environment variable that names the folder; `workflow/forkserver/server.py` sets it.
VARIABLE = "CREDITFLOW_RUN_MEMORY"

#: Seconds for which a file must have lain unchanged. Within the resolution of a file system's clock (2 s at most), two
#: contents of a file may have the same times.
_RESTED_S = 3.0

#: Path, size, time of the content, time of the inode (both in nanoseconds), and the inode's number; None for no file.
_State = list[tuple[str, tuple[int, int, int, int, int] | None]]


_of_this_process: dict[str, str] = {}


def remembered(what: str, paths: Iterable[Path], compute: Callable[[], str]) -> str:
    """Returns `compute()`, or what was computed before, in this run, from the same files in the same state.

    Args:
        what: name of what is computed.
        paths: all files that it follows from.
        compute: it is called where nothing is known.
    """
    paths = list(paths)
    state = _state(paths)
    key = sha256(repr((what, state)).encode(errors="surrogateescape"))
    if key not in _of_this_process:
        folder = os.environ.get(VARIABLE)
        note = Path(folder, key) if folder else None
        value = _read(note) or compute()
        if not _has_rested(state) or _state(paths) != state:
            return value
        _of_this_process[key] = value
        _write(note, value)
    return _of_this_process[key]


def known_sha256(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a plain file that many jobs read, to say which file it is.

    Raises OSError if it is no plain file, or cannot be read.
    """
    check_plain(path)
    return remembered("sha256", [path.absolute()], lambda: file_sha256(path))


def _state(paths: Iterable[Path]) -> _State:
    return [(str(path), _state_of(path)) for path in paths]


def _state_of(path: Path) -> tuple[int, int, int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev


def _has_rested(state: _State) -> bool:
    """Says whether all files are there and none has changed a moment ago, or in the future by this machine's clock."""
    latest = (time.time() - _RESTED_S) * 1e9
    return all(facts is not None and max(facts[1], facts[2]) < latest for _, facts in state)


def _read(note: Path | None) -> str:
    """Returns what another job has kept; "" if nothing is there."""
    with suppress(OSError, ValueError):
        return note.read_text(encoding="utf-8") if note else ""
    return ""


def _write(note: Path | None, value: str) -> None:
    with suppress(OSError):  # the folder has gone, or is full
        if note and not note.exists():
            write_atomically(note, value.encode())
