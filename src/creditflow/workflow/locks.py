"""Snakemake's lock outlives a Snakemake that was killed; this tells dead locks from living ones."""

import contextlib
import fcntl
import shutil
from pathlib import Path
from typing import IO

_held: IO[bytes] | None = None


def release_dead_locks(folder: Path) -> None:
    """Removes Snakemake's locks in `folder/.snakemake` if no other Snakemake of this workflow is alive there.

    Every Snakemake holds a shared kernel lock on one file for as long as it lives. Whoever can turn it into an
    exclusive one is alone: all locks found then belong to the dead. Where the file system has no kernel locks,
    nothing is removed, and `snakemake --unlock` remains the way.
    """
    global _held  # the lock lives as long as the open file
    state = folder / ".snakemake"
    with contextlib.suppress(OSError):
        state.mkdir(exist_ok=True)
        _held = (state / "alive.lock").open("ab")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(_held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(state / "locks", ignore_errors=True)
        fcntl.flock(_held, fcntl.LOCK_SH)
