"""Random numbers that are drawn in place and in parallel, and fingerprints by which a change of a weight is noticed.

Both functions go through memory in 64-bit words. They take as many words at a time as fit in a cache, or as keep a GPU
busy.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

_WORDS = {"cpu": 2**17, "cuda": 2**22}

#: A tensor of at most this number of bytes is filled in one step, and the fingerprint of such a weight is a copy of it.
_SMALL = 2**18

#: splitmix64 (Steele, Lea and Flood, 2014): the step of its counter, and the shifts and factors of its finaliser.
_STEP = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def fill_uniform(target: Tensor, bound: float, *key: int) -> None:
    """Fills a tensor with numbers from U(0, bound), in the order in which they lie in memory.

    Word j of a stream is the finaliser of splitmix64 applied to a + j b, where a and b follow from the key. So each
    number depends on its place only, and neither the number of threads nor the device changes it. Each half of a word
    makes one number, of 31 random bits. The CPU generator of PyTorch draws one number after the other and is several
    times slower.

    Args:
        target: the tensor, float, of any shape.
        bound: upper end of the interval.
        key: names the stream; one or more integers in [0, 2^64).

    Raises:
        RuntimeError: the numbers of the tensor do not lie at equal distances in its memory.
    """
    start, size = _hash(*key), _words(target)
    step, scale, flat = _hash(start) | 1, bound * 2.0**-31, _in_memory(target).view(-1)
    if target.device.type == "cpu" and target.dtype in (torch.float32, torch.float64) and target.nbytes <= _SMALL:
        _fill_small(flat.numpy(), scale, start, step)
        torch.autograd.graph.increment_version(target)  # autograd has not noticed what NumPy wrote
        return
    for index, numbers in enumerate(flat.split(2 * size)):
        words = _counters(size, target.device)[: (numbers.numel() + 1) // 2] * _signed(step)
        words += _signed(start + index * size * step)
        spare = torch.empty_like(words)
        for shift, factor in _ROUNDS:  # these shifts copy the sign bit, so one of the 64 bits is lost
            words.bitwise_xor_(torch.bitwise_right_shift(words, shift, out=spare)).mul_(_signed(factor))
        words.bitwise_xor_(torch.bitwise_right_shift(words, _LAST_SHIFT, out=spare))
        halves = spare.view(torch.float32)[: numbers.numel()].copy_(words.view(torch.int32)[: numbers.numel()])
        torch.mul(halves.abs_(), scale, out=numbers)


def _fill_small(numbers: "np.ndarray[Any, Any]", scale: float, start: int, step: int) -> None:
    """Does the same for few numbers. Here calls cost more than what they compute, and calls of NumPy cost the least."""
    words = np.arange((len(numbers) + 1) // 2) * _signed(step)
    words += _signed(start)
    for shift, factor in _ROUNDS:
        words ^= words >> shift
        words *= _signed(factor)
    words ^= words >> _LAST_SHIFT
    halves = words.view(np.int32)[: len(numbers)].astype(np.float32)
    np.multiply(np.abs(halves, out=halves), np.float32(scale), out=numbers)


def fingerprint(weight: Tensor) -> Tensor:
    """Returns integers that change when any bit of a weight changes. They may change with its memory format, too.

    For a small weight they are its own memory, so that they live as long as nobody writes into the weight, see
    `remembered`. For a large weight they are sums, modulo 2^64, of its 64-bit words times fixed random odd numbers. The
    sums are exact, so neither threads nor the order of summation matter. The probability that a change leaves them as
    they are is about 2^-32 or less.
    """
    flat = _in_memory(weight.detach()).reshape(-1)
    octets = flat.view(torch.uint8)
    if octets.numel() > _SMALL:
        return _sums(octets)
    if torch.compiler.is_compiling():  # a tensor without an address
        return octets
    # To compare eight bytes takes as long as to compare one.
    aligned = not any(n % 8 for n in (octets.numel(), flat.data_ptr(), flat.storage_offset() * flat.itemsize))
    return flat.view(torch.int64) if aligned else octets


def remembered(present: Tensor, before: Tensor | None = None) -> Tensor:
    """Returns a copy of a fingerprint, in the memory of the one before where it fits: new memory would take longer."""
    if before is None or before.is_inference() or not _are_alike(present, before):
        return present.clone()
    return before.copy_(present)


def is_same(present: Tensor, before: Tensor) -> bool:
    """Says whether two fingerprints are the same. For a small weight this takes until the first difference only."""
    if present.dtype is not before.dtype:  # the same memory as words and as octets
        present, before = present.view(torch.uint8), before.view(torch.uint8)
    return _are_alike(present, before) and torch.equal(present, before)


def _are_alike(left: Tensor, right: Tensor) -> bool:
    return left.dtype is right.dtype and left.shape == right.shape and left.device == right.device


def _sums(octets: Tensor) -> Tensor:
    """Returns the sums of the words of a weight times random numbers, and what is left of its octets."""
    whole, size = octets.numel() // 8 * 8, _words(octets)
    words = octets[:whole]
    if words.data_ptr() % 8:
        words = words.clone()
    factors, spare, sums = _factors(size, octets.device), torch.empty(size, dtype=torch.int64, device=octets.device), []
    for part in words.view(torch.int64).split(size):
        # The product would lose bits of a difference in the upper half, so the upper half is mixed into the lower
        # first.
        mixed = torch.bitwise_right_shift(part, 32, out=spare[: len(part)]).bitwise_xor_(part)
        sums.append(mixed.mul_(factors[: len(part)]).sum())
    return torch.cat([torch.stack(sums), octets[whole:].long()])


def _words(tensor: Tensor) -> int:
    return _WORDS.get(tensor.device.type, 2**22)


@cache
def _counters(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device)


@cache
def _factors(size: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator).bitwise_or_(1).to(device)


def _hash(*key: int) -> int:
    """Returns a 64-bit hash of integers."""
    state = 0
    for word in key:
        state = (state ^ word) + _STEP & 2**64 - 1
        for shift, factor in _ROUNDS:
            state = (state ^ state >> shift) * factor & 2**64 - 1
        state ^= state >> _LAST_SHIFT
    return state


def _signed(word: int) -> int:
    """Returns a word, modulo 2^64, as the signed integer of the same bits."""
    return (word + 2**63) % 2**64 - 2**63


def _in_memory(tensor: Tensor) -> Tensor:
    """Returns the tensor with its dimensions in the order in which they lie in memory."""
    if tensor.is_contiguous():
        return tensor
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
