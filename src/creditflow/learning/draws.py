"""Random numbers that are drawn in place and in parallel, and fingerprints that tell when a weight was updated.

Both go through memory in 64-bit words, as many at a time as stay in cache, or as keep a GPU busy.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

_WORDS = {"cpu": 2**18, "cuda": 2**22}

#: Multipliers of splitmix64's finaliser (Steele, Lea and Flood, 2014), as signed integers.
_MIX = (0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64)


def fill_uniform(target: Tensor, bound: float, seed: int, *key: int) -> None:
    """Fills a tensor with U(0, bound), in the order of its memory; seed and key are integers from 0 on.

    Word j of the stream is a hash of a + j b, where a and b follow from seed and key: each number depends on its place
    alone, so neither the number of threads nor the device changes it. PyTorch's CPU generator draws one number after the
    other, several times as slowly. Each half of a word is a number with 31 random bits.

    Raises RuntimeError for a tensor with gaps in its memory.
    """
    start, step = (int(word) for word in np.random.SeedSequence(seed, spawn_key=key).generate_state(2, np.uint64))
    device, size = target.device, _words(target)
    for index, numbers in enumerate(_in_memory(target).view(-1).split(2 * size)):
        first = torch.tensor(_signed(start + index * size * (step | 1)), device=device)
        words = torch.add(first, _counters(size, device)[: (len(numbers) + 1) // 2], alpha=_signed(step | 1))
        spare = torch.empty_like(words)
        # The shifts copy the sign, which costs one of the 64 bits.
        for shift, factor in zip((30, 27), _MIX, strict=True):
            words.bitwise_xor_(torch.bitwise_right_shift(words, shift, out=spare)).mul_(factor)
        words.bitwise_xor_(torch.bitwise_right_shift(words, 31, out=spare))
        halves = spare.view(torch.float32)[: len(numbers)].copy_(words.view(torch.int32)[: len(numbers)])
        torch.mul(halves.abs_(), bound * 2.0**-31, out=numbers)


def fingerprint(weight: Tensor) -> tuple[list[int], list[int]]:
    """Returns integers that change when a weight changes in any bit; equal weights of equal memory format have equal ones.

    Sums, modulo 2^64, of the weight's 64-bit words times fixed random odd numbers. They are exact, so neither threads nor
    the order of summation matter, and that a change leaves them alike has a probability of about 2^-32 at the most.
    """
    octets = _in_memory(weight.detach()).reshape(-1).view(torch.uint8)
    whole = octets.numel() // 8 * 8
    words = octets[:whole]
    if words.data_ptr() % 8:
        words = words.clone()
    size = _words(weight)
    factors = _factors(size, weight.device)
    spare = torch.empty_like(factors[: whole // 8])
    sums = []
    for part in words.view(torch.int64).split(size):
        mixed = spare[: len(part)]
        # A difference in the upper half alone would lose bits in the product: it is mixed into the lower half first.
        torch.bitwise_right_shift(part, 32, out=mixed)
        sums.append(mixed.bitwise_xor_(part).mul_(factors[: len(part)]).sum())
    return torch.stack(sums).tolist(), octets[whole:].tolist()


def _words(tensor: Tensor) -> int:
    return _WORDS.get(tensor.device.type, 2**22)


@cache
def _counters(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, device=device)


@cache
def _factors(size: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-(2**63), 2**63 - 1, (size,), generator=generator).bitwise_or_(1).to(device)


def _signed(word: int) -> int:
    """Returns the word, modulo 2^64, as the signed integer of the same bits."""
    return (word + 2**63) % 2**64 - 2**63


def _in_memory(tensor: Tensor) -> Tensor:
    """Returns the tensor with its dimensions in the order in which they lie in memory."""
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
