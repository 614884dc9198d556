"""Products of float32 matrices by oneDNN, where it is the faster of the two libraries that PyTorch holds.

PyTorch multiplies matrices on the CPU with MKL, which leaves AVX-512 unused on processors that are not Intel's; oneDNN, with which
PyTorch convolves, uses it: twice as fast there. What is computed is the same but for rounding.
"""

import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

#: Multiplications below which a call into Python costs more than it saves.
SMALLEST = 2**20

_library: torch.library.Library | None = None  # must live as long as its kernels


def use_faster_matmul() -> bool:
    """Has `mm` and `bmm` use oneDNN in this process, if that is faster on this processor; returns whether it is."""
    global _library
    if _library is None and _is_faster():
        _library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*verriding a previously registered kernel.*")
            _library.impl("mm", _mm, "CPU")
            _library.impl("bmm", _bmm, "CPU")
    return _library is not None


def use_torch_matmul() -> None:
    """Takes `use_faster_matmul` back, for tests that compare the two."""
    global _library
    if _library is not None:
        _library._destroy()
        _library = None


@cache
def mkl_is_held_back() -> bool:
    """Returns whether PyTorch computes with MKL on a processor whose AVX-512 MKL leaves unused."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    capable = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return capable and "GenuineIntel" not in described


def _is_faster() -> bool:
    return mkl_is_held_back() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _mm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and a.numel() * b.shape[1] >= SMALLEST:
        return _onednn(a, b)
    return torch.addmm(a.new_zeros(()), a, b, beta=0)  # MKL's, as `mm` itself leads here


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and a.shape[1] * a.shape[2] * b.shape[2] >= SMALLEST:
        found = a.new_empty(len(a), a.shape[1], b.shape[2])
        for index in range(len(a)):
            found[index] = _onednn(a[index], b[index])
        return found
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0)


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return found
