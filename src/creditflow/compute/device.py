"""The device that a stage computes on, its CPU threads, and its deterministic kernels."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# While modules load, nothing becomes garbage. A search for garbage during the imports, and later among what they made,
# would cost a fifth of the time of a short job.
gc.disable()
import torch

gc.freeze()
gc.enable()

from creditflow.compute import gpus
from creditflow.core.errors import UserError

#: The numbers of two parameters of glibc's function mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

#: Environment variable that cuBLAS reads at its first call, and a value with which it repeats its numbers bit for bit.
CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG", ":4096:8"


@contextmanager
def no_denormals() -> Iterator[None]:
    """Lets the CPU take numbers below 1.2e-38 as zero.

    Weight decay makes the weights of dead units that small, and processors of Intel compute with such numbers a hundred
    times more slowly.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def use_device(device: str, threads: int) -> torch.device:
    """Sets the number of CPU threads, switches deterministic kernels on, and returns the device.

    Args:
        device: `auto` (CUDA if there is a CUDA device, else the CPU), `cpu`, `cuda` or `cuda:N`. For `auto` and `cuda`
            the process takes a GPU slot if the workflow has announced slots.
        threads: number of CPU threads.

    Raises:
        UserError: another text is given; the CUDA device does not exist; or `auto` would fall back to the CPU although
            the process was given a GPU.
    """
    torch.set_num_threads(threads)
    if device in ("auto", "cuda"):
        gpus.take_slot()
    _keep_freed_memory()
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise UserError(f"--device {device!r} is not a device; use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"--device {device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cpu" and device == "auto":
        gpus.check_promised()
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices; use --device auto"
        )
    if chosen.type == "cuda":
        _make_cuda_deterministic()
    return chosen


def _keep_freed_memory() -> None:
    # Otherwise glibc gives the memory of each activation back to the kernel and asks for it again, which takes a fifth
    # of the time of an attack.
    with contextlib.suppress(OSError, AttributeError):  # the C library is another one
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _make_cuda_deterministic() -> None:
    # This is not called for the CPU: the kernels used here are deterministic there anyway, and the call takes 1.5 s for
    # imports.
    os.environ.setdefault(CUBLAS_WORKSPACE, DETERMINISTIC_WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
