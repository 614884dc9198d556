"""Hamming ranking and average precision, as the literature on hashing defines them.

A query's ranking orders the database by Hamming distance; items at the same distance stay in the database's own order, which a
protocol shuffles. AP@k = (1 / R) sum over ranks j <= k of relevant(j) P(j), with P(j) the share of relevant items among the first j and
R their number among the first k: one relevant item at rank 1 and no other in the top k gives 1. A query without any counts as 0.

Distances take K + 1 values only, so blocks of ties are long and the order within them matters. Beside each AP stands its
expectation over all orders of ties (`ties.py`).

Codes are packed into machine words, whose distances are counts of bits. Queries look only at the items up to the distance within
which the first k are found, and sort these alone; queries of the same code and labels are ranked once. Threads share the queries, as
NumPy computes without Python's lock.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from creditflow.errors import UserError
from creditflow.retrieval.ties import expected_precision, tables

_T = TypeVar("_T", bound=np.generic)

#: Bits of a sort key that say where in a block an item is; above them are its distance and, topmost, its query.
_PLACE = 40
_MASK = (1 << _PLACE) - 1

#: Queries that are ranked together: enough that calls are cheap, few enough that their distances stay in cache.
_TOGETHER = 8


@dataclass(frozen=True)
class Precisions:
    """AP@k of each query (Q,), in the database's order and expected over the orders of ties; k as it was used."""

    average: Tensor
    tie_averaged: Tensor
    k: int


@dataclass(frozen=True)
class Curves:
    """Means over queries.

    Attributes:
        ranks, precision_at: precision among the first so many.
        radius_precision, radius_recall: (K + 1,) of all items within each Hamming radius; precision is 0 where
            there are none, as a search that finds nothing has failed.
    """

    ranks: tuple[int, ...]
    precision_at: Tensor
    radius_precision: Tensor
    radius_recall: Tensor


def average_precisions(codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, k: int) -> Precisions:
    """Returns AP@k of each query. k is cut to the size of the database.

    Args:
        codes, database_codes: int8 (Q, K) and (N, K) in {-1, +1}.
        labels, database_labels: int64 (Q,) and (N,), or zeros and ones (Q, C) and (N, C); relevant is what shares a label.

    Raises UserError if k is not positive, a part is empty, or codes or labels do not fit each other.
    """
    search = _Search(codes, labels, database_codes, database_labels)
    k = search.cut(k)
    numbers = tables(len(database_codes))

    def both(queries: slice) -> NDArray[np.float64]:
        near = search.near(queries, k)
        expected = [expected_precision(*counts, k, numbers) for counts in zip(*near.histograms(), strict=True)]
        return np.column_stack([_average_precision(near.relevant(near.order(k))), expected])

    stable, averaged = torch.from_numpy(search.for_all(both)).unbind(1)
    return Precisions(stable, averaged, k)


def mean_average_precision(codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, k: int) -> float:
    """Returns mAP@k in the database's order alone, without the expectation over ties; arguments and errors as above."""
    search = _Search(codes, labels, database_codes, database_labels)
    k = search.cut(k)

    def stable(queries: slice) -> NDArray[np.float64]:
        near = search.near(queries, k)
        return _average_precision(near.relevant(near.order(k)))

    return float(search.for_all(stable).mean())


def nearest(codes: Tensor, database_codes: Tensor, n: int) -> Tensor:
    """Returns the indices int64 (Q, n) of the first n of each query's ranking; n is cut to the size of the database."""
    nothing = torch.zeros(len(codes), dtype=torch.int64), torch.zeros(len(database_codes), dtype=torch.int64)
    search = _Search(codes, nothing[0], database_codes, nothing[1])
    n = search.cut(n)
    return torch.from_numpy(search.for_all(lambda queries: search.near(queries, n).order(n)))


def curves(codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, ranks: tuple[int, ...]) -> Curves:
    """Returns precision at some ranks (those beyond the database are left out), and precision and recall by Hamming radius.

    Arguments and errors as for `average_precisions`.
    """
    search = _Search(codes, labels, database_codes, database_labels)
    ranks = tuple(rank for rank in ranks if rank <= len(database_codes))

    def of_each(queries: slice) -> NDArray[np.float64]:
        near = search.near(queries, len(database_codes))
        found = near.relevant(near.order(max(ranks, default=1))).cumsum(1)
        everything, relevant = (counts.cumsum(1) for counts in near.histograms())
        precision = relevant / np.maximum(everything, 1)
        at = [found[:, rank - 1] / rank for rank in ranks]
        return np.column_stack([*at, precision, relevant / np.maximum(relevant[:, -1:], 1)])

    means = torch.from_numpy(search.for_all(of_each).mean(0))
    at, precision, recall = means.split([len(ranks), codes.shape[1] + 1, codes.shape[1] + 1])
    return Curves(ranks, at, precision, recall)


class _Near:
    """The items nearest to each of some queries: all up to a distance."""

    def __init__(self, search: "_Search", queries: slice, distances: NDArray[np.unsignedinteger], inside: NDArray[np.bool_]) -> None:
        self._search, self._queries, self._n = search, queries, inside.shape[1]
        self._counts = np.array([np.count_nonzero(line) for line in inside])
        self._flat = np.flatnonzero(inside)
        self._distances = distances.reshape(-1).take(self._flat)

    def order(self, k: int) -> NDArray[np.int64]:
        """Returns the first k items of each ranking (q, k)."""
        keys = np.repeat(np.arange(len(self._counts)) << 16, self._counts)
        keys |= self._distances
        keys <<= _PLACE
        keys |= self._flat
        keys.sort()  # all differ: no stable sort is needed
        starts = self._counts.cumsum() - self._counts
        top = np.stack([keys[start : start + k] for start in starts])
        top &= _MASK
        top -= np.arange(len(top))[:, None] * self._n
        return top

    def relevant(self, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether items (q, k) are relevant."""
        return self._search.relevant(self._queries, items)

    def histograms(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns how many items there are at each distance (q, K + 1): all, and the relevant ones."""
        levels = self._search.bits + 1
        rows = np.repeat(np.arange(len(self._counts)), self._counts)
        hits = self._search.relevant_to(rows + self._queries.start, self._flat - rows * self._n)
        cells = rows * levels + self._distances
        size = len(self._counts) * levels
        both = np.bincount(cells, minlength=size), np.bincount(cells[hits], minlength=size)
        return both[0].reshape(-1, levels), both[1].reshape(-1, levels)


@dataclass(frozen=True)
class _Scratch:
    """Memory for words, distances and verdicts, each (q, N)."""

    words: NDArray[np.unsignedinteger]
    distances: NDArray[np.uint8]
    inside: NDArray[np.bool_]


class _Search:
    """Queries and a database, packed."""

    def __init__(self, codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor) -> None:
        _check(codes, labels, database_codes, database_labels)
        self.bits = codes.shape[1]
        self._database, self._database_labels = _code_words(database_codes), _label_words(database_labels)
        words, own = _code_words(codes), _label_words(labels)
        # A trained network gives many queries the same code: those that have their labels in common, too, are ranked once.
        columns = [*words, *own.reshape(len(own), -1).T]
        _, first, alike = np.unique(np.column_stack([one.astype(np.uint64) for one in columns]), True, True, axis=0)
        self._queries, self._labels, self._alike = words[:, first], own[first], alike.reshape(-1)
        self._radius = 0
        self._memory = threading.local()

    def cut(self, k: int) -> int:
        """Returns k, or the size of the database if that is less. Raises UserError if it is not positive."""
        if k < 1:
            raise UserError(f"k of mAP@k must be at least 1, not {k}")
        return min(k, len(self._database_labels))

    def for_all(self, function: Callable[[slice], NDArray[_T]]) -> NDArray[_T]:
        """Returns a function's values (Q, ...) for all queries; it is given some of them at a time."""
        n = self._queries.shape[1]
        parts = [slice(start, min(start + _TOGETHER, n)) for start in range(0, n, _TOGETHER)]
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return np.concatenate(list(pool.map(function, parts)))[self._alike]

    def near(self, queries: slice, k: int) -> _Near:
        """Returns for each of the queries all items up to the least distance within which there are k of them."""
        scratch = self._scratch(queries.stop - queries.start)
        distances = self._distances(queries, scratch)
        for line, inside in zip(distances, scratch.inside, strict=True):
            self._mark(line, inside, k)
        return _Near(self, queries, distances, scratch.inside)

    def _mark(self, distances: NDArray[np.unsignedinteger], inside: NDArray[np.bool_], k: int) -> None:
        def enough(radius: int) -> bool:
            np.less_equal(distances, radius, out=inside)
            return bool(np.count_nonzero(inside) >= k)

        # The last query's radius is a good guess; that threads overwrite it does no harm.
        radius = self._radius
        if enough(radius):
            while radius > 0 and enough(radius - 1):
                radius -= 1
            enough(radius)
        else:
            radius += 1
            while not enough(radius):
                radius += 1
        self._radius = radius

    def _distances(self, queries: slice, scratch: "_Scratch") -> NDArray[np.unsignedinteger]:
        total: NDArray[np.unsignedinteger] | None = None
        for theirs, own in zip(self._database, self._queries[:, queries], strict=True):
            np.bitwise_xor(theirs, own[:, None], out=scratch.words)
            count = np.bitwise_count(scratch.words, out=scratch.distances)
            total = count if len(self._database) == 1 else np.add(count, 0 if total is None else total, dtype=np.uint16)
        assert total is not None
        return total

    def _scratch(self, n: int) -> "_Scratch":
        """Returns memory of this thread's own: fresh memory would cost as much as what is done with it."""
        if not hasattr(self._memory, "scratch"):
            shape = (_TOGETHER, self._database.shape[1])
            words, distances, inside = (np.empty(shape, dtype=kind) for kind in (self._database.dtype, np.uint8, np.bool_))
            self._memory.scratch = _Scratch(words, distances, inside)
        whole: _Scratch = self._memory.scratch
        return _Scratch(whole.words[:n], whole.distances[:n], whole.inside[:n])

    def relevant(self, queries: slice, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns whether each query's items (q, k) share a label with it."""
        found, own = self._database_labels.take(items, axis=0), self._labels[queries, None]
        return np.equal(found, own) if self._labels.ndim == 1 else _any(found & own)

    def relevant_to(self, queries: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Returns for pairs of a query and an item whether they share a label."""
        found, own = self._database_labels.take(items, axis=0), self._labels[queries]
        return np.equal(found, own) if self._labels.ndim == 1 else _any(found & own)


def _any(words: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(words.any(-1))


def _check(codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor) -> None:
    if len(codes) == 0 or len(database_codes) == 0:
        raise UserError(f"{len(codes)} queries and {len(database_codes)} items to search: both must be there")
    if codes.dim() != 2 or codes.shape[1:] != database_codes.shape[1:]:
        raise UserError(f"codes of shapes {tuple(codes.shape)} and {tuple(database_codes.shape)} have no distance; encode both alike")
    for what, one in (("queries", codes), ("database", database_codes)):
        if not bool((one.abs() == 1).all()):
            raise UserError(f"the codes of the {what} are not all -1 or +1; use hash_codes")
    if labels.shape[1:] != database_labels.shape[1:] or len(labels) != len(codes) or len(database_labels) != len(database_codes):
        raise UserError(f"labels of shapes {tuple(labels.shape)} and {tuple(database_labels.shape)} do not belong to these codes")


def _code_words(codes: Tensor) -> NDArray[np.unsignedinteger]:
    """Returns codes (n, K) as words (W, n): of 32 bits if that is enough, else of 64."""
    return _packed(codes.cpu().numpy() > 0, 4 if codes.shape[1] <= 32 else 8).T.copy()


def _label_words(labels: Tensor) -> NDArray[np.integer]:
    """Returns labels (N,) as they are, and of several zeros and ones (N, C) 64 in a word (N, W)."""
    return labels.cpu().numpy() if labels.dim() == 1 else _packed(labels.cpu().numpy() > 0, 8)


def _packed(bits: NDArray[np.bool_], octets: int) -> NDArray[np.unsignedinteger]:
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(packed), -(-packed.shape[1] // octets) * octets), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint32 if octets == 4 else np.uint64)


def _average_precision(relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns the average precisions (q,) of rankings (q, k)."""
    found = relevant.cumsum(1, dtype=np.int32)
    precisions = found / np.arange(1, relevant.shape[1] + 1)
    averages: NDArray[np.float64] = np.einsum("qk,qk->q", precisions, relevant) / np.maximum(found[:, -1], 1)
    return averages
