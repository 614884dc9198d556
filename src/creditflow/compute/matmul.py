"""Matrix products of float32 by oneDNN, where oneDNN is faster than MKL; PyTorch contains both libraries.

PyTorch multiplies matrices on the CPU with MKL. On processors that are not Intel's, MKL does not use AVX-512. oneDNN,
with which PyTorch convolves, does use it and is twice as fast there. The results are the same but for rounding.
"""

import warnings
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

#: Matrix products of fewer multiplications stay with MKL: the call into Python would cost more than it saves.
SMALLEST = 2**20

_library: torch.library.Library | None = None  # the kernels vanish when this object does


def use_faster_matmul() -> bool:
    """Lets `mm` and `bmm` use oneDNN in this process if that is faster on this processor; returns whether it is."""
    global _library
    if _library is None and _is_faster():
        _library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*verriding a previously registered kernel.*")
            _library.impl("mm", _mm, "CPU")
            _library.impl("bmm", _bmm, "CPU")
    return _library is not None


@cache
def mkl_is_held_back() -> bool:
    """Returns whether PyTorch computes with MKL on a processor that has AVX-512 which MKL does not use."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    capable = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"
    return capable and "GenuineIntel" not in described


def _is_faster() -> bool:
    return mkl_is_held_back() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _mm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and a.numel() * b.shape[1] >= SMALLEST:
        return _onednn(a, b)
    return torch.addmm(a.new_zeros(()), a, b, beta=0)  # by MKL; `mm` would lead back to this function


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == torch.float32 and a.shape[1] * a.shape[2] * b.shape[2] >= SMALLEST:
        result = a.new_empty(len(a), a.shape[1], b.shape[2])
        for index in range(len(a)):
            result[index] = _onednn(a[index], b[index])
        return result
    return torch.baddbmm(a.new_zeros(()), a, b, beta=0)


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
    return product
