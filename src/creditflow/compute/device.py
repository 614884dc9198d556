"""The device that a stage computes on, its CPU threads, and its deterministic kernels."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager

# While modules load nothing becomes garbage; looking for it, then and later among them, costs a fifth of a short job.
gc.disable()
import torch

gc.freeze()
gc.enable()

from creditflow.compute import gpus
from creditflow.core.errors import UserError

#: Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@contextmanager
def no_denormals() -> Iterator[None]:
    """Has the CPU take numbers below 1.2e-38 as zero.

    Weight decay drives the weights of dead units down there, and Intel's processors are a hundred times slower with them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def use_device(device: str, threads: int) -> torch.device:
    """Sets the CPU threads and deterministic kernels, and returns the device.

    `device` is `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`. For `auto` and `cuda` the process takes
    a GPU slot where the workflow has announced some. Raises UserError for anything else, for a CUDA device that does
    not exist, and where `auto` would fall back to the CPU although a GPU was assigned.
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
    # glibc gives every freed activation back to the kernel and asks for it again: a fifth of an attack's time.
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _make_cuda_deterministic() -> None:
    # Not called for the CPU, whose kernels used here are deterministic anyway: the call costs 1.5 s of imports.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first call
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
