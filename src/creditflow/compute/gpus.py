"""GPUs of one machine, shared by parallel jobs: a job holds a slot for as long as it lives.

This file imports neither torch nor pandas, so that the workflow can use it at its start.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO

from creditflow.core.errors import UserError
from creditflow.core.files import warn

#: Environment variable that the workflow sets and its jobs read: the GPU of each slot, named as in
#: CUDA_VISIBLE_DEVICES.
SLOTS = "CREDITFLOW_GPUS"
VISIBLE = "CUDA_VISIBLE_DEVICES"

_POLL_S = 0.2
_held: IO[bytes] | None = None


def announce_slots(count: int) -> None:
    """Tells the jobs of this workflow to share the GPUs of the machine, in `count` slots that go round the GPUs.

    If there are more slots than GPUs, several jobs share a GPU. Raises UserError if the machine has no GPU.
    """
    if os.environ.get(SLOTS):
        return
    gpus = _visible() or _listed()
    if not gpus:
        raise UserError(
            f"gpu={count} is asked for, but nvidia-smi lists no GPU on this machine;"
            " use --workflow-profile profiles/default"
        )
    os.environ[SLOTS] = ",".join(gpus[slot % len(gpus)] for slot in range(count))
    # If a job finds this variable set nevertheless, a scheduler has chosen the GPU for this very job.
    os.environ.pop(VISIBLE, None)


def take_slot(folder: Path = Path(".snakemake/gpus")) -> str | None:
    """Waits for a free slot, makes its GPU the only one that CUDA sees, and returns the name of the GPU.

    The slot is free again when the process ends. CUDA must not have been used before.

    Does nothing and returns None if no slots are announced, and if CUDA_VISIBLE_DEVICES is set, as a scheduler has then
    chosen the GPU.

    Raises UserError if the file system of `folder`, which holds one lock file for each slot, has no locks.
    """
    global _held
    if _held is not None or not os.environ.get(SLOTS) or VISIBLE in os.environ:
        return None
    gpus = os.environ[SLOTS].split(",")
    folder.mkdir(parents=True, exist_ok=True)
    files = [(folder / f"{platform.node()}-{slot}.lock").open("ab") for slot in range(len(gpus))]
    waiting = False
    while True:
        for gpu, file in zip(gpus, files, strict=True):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError as error:
                raise UserError(
                    f"{folder} has no kernel locks ({error.strerror}), so GPUs cannot be shared out;"
                    f" set {VISIBLE} yourself"
                ) from error
            _held = file  # the lock lives as long as the open file
            os.environ[VISIBLE] = gpu
            return gpu
        if not waiting:
            warn(f"all {len(gpus)} GPU slots are taken; waiting")
            waiting = True
        # This wait has no end of its own: the jobs that hold the slots may take days, and each ends or is killed.
        time.sleep(_POLL_S)


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


def _listed() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    return done.stdout.split() if done.returncode == 0 else []
