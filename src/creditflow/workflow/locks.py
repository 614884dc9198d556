"""Snakemake's lock outlives a Snakemake that was killed; this tells dead locks from living ones."""

import contextlib
import fcntl
import os
import shutil
import stat
import time
from pathlib import Path
from typing import IO

from creditflow.core.errors import UserError

#: Seconds for which this waits for another Snakemake that is removing locks, and between two looks.
_PATIENCE_S, _POLL_S = 60.0, 0.1

_held: IO[bytes] | None = None


def release_dead_locks(folder: Path) -> None:
    """Removes Snakemake's locks in `folder/.snakemake` if no other Snakemake of this workflow is alive there.

    Every Snakemake holds a shared kernel lock on one file for as long as it lives. Whoever can turn it into an
    exclusive one is alone: all locks found then belong to the dead. Where the file system has no kernel locks,
    nothing is removed, and `snakemake --unlock` remains the way.

    Raises UserError if another process keeps the exclusive lock, which one that goes on holds for a moment only.
    """
    global _held  # the lock lives as long as the open file
    state = folder / ".snakemake"
    path = state / "alive.lock"
    with contextlib.suppress(OSError):
        state.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # a pipe would be waited for
        _held = os.fdopen(descriptor, "rb", buffering=0)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return
        if _locked(_held, fcntl.LOCK_EX):
            shutil.rmtree(state / "locks", ignore_errors=True)
        end = time.monotonic() + _PATIENCE_S
        while not _locked(_held, fcntl.LOCK_SH):
            if time.monotonic() > end:
                raise UserError(
                    f"another Snakemake has kept {path} for itself for {_PATIENCE_S:g} s, as one that is stopped or"
                    f" hangs does; find it by `fuser {path}`, end it, then run the same command again"
                )
            time.sleep(_POLL_S)


def _locked(file: IO[bytes], kind: int) -> bool:
    """Tries to take a kernel lock; returns whether it is taken."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
