"""The expectation of average precision over all orders of items at the same distance, in closed form."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Integers = NDArray[np.int64]
_Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Tables:
    """Sums 1 + 1/2 + ... + 1/n and logarithms of n!, for n = 0, 1, ..."""

    harmonic: _Reals
    log_factorial: _Reals


def tables(n: int) -> Tables:
    """Returns the tables up to n."""
    numbers = np.arange(1, n + 1)
    return Tables(np.concatenate([[0.0], np.cumsum(1 / numbers)]), np.concatenate([[0.0], np.cumsum(np.log(numbers))]))


def expected_precision(counts: _Integers, hits: _Integers, k: int, numbers: Tables) -> float:
    """Returns the expectation of AP@k for one query.

    Items at the same distance are a block. A block of b items, h of them relevant, begins after n items, r of them
    relevant; m of its items are among the first k. If x of these m are relevant, each of the m places holds a relevant
    item with probability x / m, and then on average (i - 1)(x - 1) / (m - 1) of the i - 1 places before it in the block
    do, too. So the block adds x / m sum_i (r + 1 + (i - 1)(x - 1) / (m - 1)) / (n + i). All blocks but the last lie
    wholly among the first k, so that x = h; in the last one x is hypergeometric.

    Args:
        counts: number of items (K + 1,) at each distance.
        hits: number of relevant items (K + 1,) at each distance.
        k: how many items of the ranking count.
        numbers: tables up to the number of items.
    """
    before, hits_before = counts.cumsum() - counts, hits.cumsum() - hits
    whole = (before + counts <= k) & (hits > 0)
    total = float(_block_sum(before[whole], hits_before[whole], counts[whole], hits[whole], numbers).sum())
    n_hits = int(hits[whole].sum())
    cut = np.flatnonzero((before < k) & (before + counts > k))
    if len(cut) == 0:
        return total / n_hits if n_hits else 0.0
    n, r, b, h = (int(values[cut[0]]) for values in (before, hits_before, counts, hits))
    m = k - n
    x = np.arange(max(0, m - (b - h)), min(h, m) + 1)
    logs = _log_choose(h, x, numbers) + _log_choose(b - h, m - x, numbers)
    weights = np.exp(logs - logs.max())
    sums = total + _block_sum(np.int64(n), np.int64(r), np.int64(m), x, numbers)
    return float((weights * sums / np.maximum(n_hits + x, 1)).sum() / weights.sum())


def _block_sum(
    n: _Integers | np.int64, r: _Integers | np.int64, m: _Integers | np.int64, x: _Integers, numbers: Tables
) -> _Reals:
    """Returns the expected sum of precisions at the relevant places of blocks, or of one block for several x."""
    ones = numbers.harmonic[n + m] - numbers.harmonic[n]  # sum over i = 1..m of 1 / (n + i)
    places = m - (n + 1) * ones  # the same of (i - 1) / (n + i)
    sums: _Reals = x / m * ((r + 1) * ones + (x - 1) / np.maximum(m - 1, 1) * places)
    return sums


def _log_choose(n: int, k: _Integers, numbers: Tables) -> _Reals:
    logs: _Reals = numbers.log_factorial[n] - numbers.log_factorial[k] - numbers.log_factorial[n - k]
    return logs
