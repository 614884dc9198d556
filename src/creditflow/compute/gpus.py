"""GPUs of one machine, shared by parallel jobs: a job holds a slot for as long as it lives.

This file imports neither torch nor pandas, so that the workflow can use it at its start.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import warn

#: Environment variable that the workflow sets and its jobs read: the GPU of each slot, named as in
#: CUDA_VISIBLE_DEVICES.
SLOTS = "CREDITFLOW_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"

#: Seconds in which nvidia-smi answers, and between two looks at the slots.
_SMI_S, _POLL_S = 60, 0.2
#: Seconds after which a job that waits says again whom it waits for, and after which it ends. Jobs may take days.
_REMINDER_S, _PATIENCE_S = 600, 7 * 24 * 3600
_held: IO[bytes] | None = None


def announce_slots(count: int) -> None:
    """Tells the jobs of this workflow to share the GPUs of the machine, in `count` slots that go round the GPUs.

    If there are more slots than GPUs, several jobs share a GPU. Raises UserError if the machine has no GPU.
    """
    if os.environ.get(SLOTS):
        return
    gpus = _visible() or _listed(count)
    os.environ[SLOTS] = ",".join(gpus[slot % len(gpus)] for slot in range(count))
    # If a job finds this variable set nevertheless, a scheduler has chosen the GPU for this very job.
    os.environ.pop(VISIBLE, None)


def take_slot(folder: Path = Path(".snakemake/gpus")) -> str | None:
    """Waits for a free slot, makes its GPU the only one that CUDA sees, and returns the name of the GPU.

    The slot is free again when the process ends. CUDA must not have been used before. While it waits, it says whom it
    waits for: at once, and every ten minutes.

    Does nothing and returns None if no slots are announced, and if CUDA_VISIBLE_DEVICES is set, as a scheduler has then
    chosen the GPU.

    Raises UserError if no slot becomes free within a week, or if the file system of `folder`, which holds one lock file
    for each slot, has no locks.
    """
    global _held
    if _held is not None or not os.environ.get(SLOTS) or VISIBLE in os.environ:
        return None
    gpus = os.environ[SLOTS].split(",")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{platform.node()}-{slot}.lock" for slot in range(len(gpus))]
    files = [path.open("ab") for path in paths]
    start = reminder = time.monotonic()
    while (slot := _first_free(files, folder)) is None:
        now = time.monotonic()
        if now >= start + _PATIENCE_S:
            raise UserError(
                f"no GPU slot became free in {_PATIENCE_S} s; {_holders(paths)}; stop what hangs, then run the same"
                " command again"
            )
        if now >= reminder:
            warn(f"all {len(gpus)} GPU slots are taken; {_holders(paths)}; waiting")
            reminder = now + _REMINDER_S
        time.sleep(_POLL_S)
    _held = files[slot]  # the lock lives as long as the open file
    _sign(_held)
    os.environ[VISIBLE] = gpus[slot]
    return gpus[slot]


def _first_free(files: Sequence[IO[bytes]], folder: Path) -> int | None:
    """Returns the first slot whose lock could be taken; None if all are held."""
    for slot, file in enumerate(files):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            raise UserError(
                f"{folder} has no kernel locks ({error.strerror}), so GPUs cannot be shared out; set {VISIBLE} yourself"
            ) from error
        return slot
    return None


def _sign(file: IO[bytes]) -> None:
    """Notes in a slot's file who holds it, for those that wait."""
    script = Path(sys.argv[0]).stem or "python"
    with suppress(OSError):  # on a full disk nobody can tell whom to wait for
        file.truncate(0)
        file.write(f"process {os.getpid()} ({script})".encode())
        file.flush()


def _holders(paths: Sequence[Path]) -> str:
    """Returns who holds the slots, as the holders have signed."""
    signed = [path.read_bytes()[:200].decode(errors="replace") or "somebody who has not signed" for path in paths]
    return f"they are held by {', '.join(dict.fromkeys(signed))}"


def check_promised() -> None:
    """Raises UserError if a scheduler or a slot gave this job a GPU. Call it if torch sees no GPU."""
    promised = os.environ.get(VISIBLE, "")
    if promised not in ("", "-1", "NoDevFiles"):
        raise UserError(
            f"{VISIBLE}={promised} promises a GPU, but torch sees none; give the container the GPU"
            " (--nv in the profile's apptainer-args) and torch's cuda flavour, or set `device: cpu`"
        )


def _visible() -> list[str]:
    return [gpu for gpu in os.environ.get(VISIBLE, "").split(",") if gpu]


def _listed(count: int) -> list[str]:
    """Returns the GPUs that nvidia-smi lists. Raises UserError, which says what nvidia-smi does instead."""
    if shutil.which("nvidia-smi") is None:
        raise _without_gpu(count, "there is no nvidia-smi")
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            timeout=_SMI_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _without_gpu(count, f"nvidia-smi does not answer within {_SMI_S} s") from None
    except OSError as error:
        raise _without_gpu(count, f"nvidia-smi cannot be run ({one_line(error)})") from error
    if done.returncode != 0:
        said = " ".join(f"{done.stdout} {done.stderr}".split())[:300]
        raise _without_gpu(count, f"nvidia-smi fails ({said or f'exit code {done.returncode}'})")
    if not (gpus := done.stdout.split()):
        raise _without_gpu(count, "nvidia-smi lists no GPU")
    return gpus


def _without_gpu(count: int, why: str) -> UserError:
    return UserError(
        f"gpu={count} is asked for, but {why} on this machine; use --workflow-profile profiles/default, or say in"
        f" {VISIBLE} which GPUs there are"
    )
