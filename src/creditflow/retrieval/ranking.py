"""Hamming ranking and average precision, as the literature on hashing defines them.

A query's ranking orders the database by Hamming distance. Items at the same distance stay in the order of the database,
which a protocol shuffles. AP@k = (1 / R) sum over ranks j <= k of relevant(j) P(j). P(j) is the share of relevant items
among the first j, and R the number of relevant items among the first k: one relevant item at rank 1 and no other in the
top k gives 1. A query without any relevant item there counts as 0.

Distances take K + 1 values only, so that blocks of ties are long and the order within them matters. Each AP comes with
its expectation over all orders of ties (`ties.py`).

Codes are packed into machine words (`packing.py`). A trained network gives many images the same code. So each code of a
query is ranked once, and its distance to each code of the database is counted once. Only items within the distance that
holds the first k items are sorted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.retrieval.packing import code_words, grouped, label_words, shared
from creditflow.retrieval.ties import expected_precision, tables

_T = TypeVar("_T")


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


def average_precisions(
    codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, k: int
) -> Precisions:
    """Returns AP@k of each query. k is cut to the size of the database.

    Args:
        codes, database_codes: int8 (Q, K) and (N, K) in {-1, +1}.
        labels, database_labels: int64 (Q,) and (N,), or zeros and ones (Q, C) and (N, C). An item is relevant for a
            query if they share a label.
        k: how many items of the ranking count.

    Raises UserError if k is not positive, a part is empty, or codes or labels do not fit each other.
    """
    search = _Search(codes, labels, database_codes, database_labels)
    k = search.cut(k)
    numbers = tables(len(database_codes))

    def both(near: _Near) -> list[tuple[float, float]]:
        expected = [expected_precision(everything, hits, k, numbers) for everything, hits in near.histograms()]
        return list(zip(map(_average_precision, near.relevant(k)), expected, strict=True))

    stable, averaged = torch.tensor(search.for_all(both, k), dtype=torch.float64).unbind(1)
    return Precisions(stable, averaged, k)


def mean_average_precision(
    codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, k: int
) -> float:
    """Returns mAP@k in the database's order alone, without the expectation over ties; arguments and errors as above."""
    search = _Search(codes, labels, database_codes, database_labels)
    k = search.cut(k)
    return float(np.mean(search.for_all(lambda near: list(map(_average_precision, near.relevant(k))), k)))


def nearest(codes: Tensor, database_codes: Tensor, n: int) -> Tensor:
    """Returns the indices int64 (Q, n) of the first n of each query's ranking; n is cut to the size of the database."""
    nothing = torch.zeros(len(codes), dtype=torch.int64), torch.zeros(len(database_codes), dtype=torch.int64)
    search = _Search(codes, nothing[0], database_codes, nothing[1])
    n = search.cut(n)
    return torch.from_numpy(np.stack(search.for_all(lambda near: [near.order(n)] * len(near.labels), n)))


def curves(
    codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, ranks: tuple[int, ...]
) -> Curves:
    """Returns precision at some ranks within the size of the database, and precision and recall by Hamming radius.

    Arguments and errors as for `average_precisions`.
    """
    search = _Search(codes, labels, database_codes, database_labels)
    ranks = tuple(rank for rank in ranks if rank <= len(database_codes))

    def of_each(near: _Near) -> list[NDArray[np.float64]]:
        return [
            _curve(relevant[: max(ranks, default=0)].cumsum(), ranks, *counts)
            for relevant, counts in zip(near.relevant(len(near.keys)), near.histograms(), strict=True)
        ]

    means = torch.from_numpy(np.mean(search.for_all(of_each, len(database_codes)), 0))
    at, precision, recall = means.split([len(ranks), codes.shape[1] + 1, codes.shape[1] + 1])
    return Curves(ranks, at, precision, recall)


def _curve(
    hits: NDArray[np.int64], ranks: tuple[int, ...], everything: NDArray[np.int64], relevant: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns one query's precision at the ranks, then precision and recall within each distance.

    Args:
        hits: number of relevant items (k,) up to each rank.
        ranks: where precision is measured.
        everything, relevant: number of items, and of relevant ones, at each distance (K + 1,).
    """
    within = relevant.cumsum()
    at = [hits[rank - 1] / rank for rank in ranks]
    return np.concatenate([at, within / np.maximum(everything.cumsum(), 1), within / max(within[-1], 1)])


class _Search:
    """Queries and a database as packed words; equal codes are held once."""

    def __init__(self, codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor) -> None:
        _check(codes, labels, database_codes, database_labels)
        self.levels = codes.shape[1] + 1
        self.database_labels, query_labels = label_words(database_labels), label_words(labels)
        self.codes, order, self.counts = grouped(code_words(database_codes))
        self.starts = self.counts.cumsum() - self.counts
        self.numbers = np.arange(len(order))
        # A sort key is a distance in the high bits and a place in the database in the low bits.
        self.place_bits = len(order).bit_length()
        narrow = self.place_bits + self.levels.bit_length() <= 32
        self.items: NDArray[np.unsignedinteger] = order.astype(np.uint32 if narrow else np.uint64)
        # Queries are alike if they have code and labels in common.
        words = code_words(codes)
        columns = [*words, *query_labels.reshape(len(query_labels), -1).T]
        _, first, self._alike = np.unique(
            np.column_stack([column.astype(np.uint64) for column in columns]), True, True, axis=0
        )
        self.labels = query_labels[first]
        self.queries, order, counts = grouped(words[:, first])
        self._alike = np.argsort(order)[self._alike.reshape(-1)]
        self.labels = self.labels[order]
        self._bounds = np.concatenate([[0], counts.cumsum()])
        n = self.codes.shape[1]
        # Buffers for all queries: to allocate them for each query would cost as much as the computations.
        self._words, self._weights = np.empty(n, self.codes.dtype), np.empty(n)
        self._inside = [np.empty(n, np.bool_) for _ in range(2)]
        self._distances = [np.empty(n, np.uint8) for _ in self.codes]
        self._real_counts, self._radius = self.counts.astype(np.float64), 0

    def cut(self, k: int) -> int:
        """Returns k, or the size of the database if that is less. Raises UserError if it is not positive."""
        if k < 1:
            raise UserError(f"k of mAP@k must be at least 1, not {k}")
        return min(k, len(self.items))

    def for_all(self, function: Callable[["_Near"], list[_T]], k: int) -> list[_T]:
        """Returns a function's value for each query.

        The function is called once for each code, with at least the k items nearest to it. Its list has a value for
        each query that has this code.
        """
        groups = zip(self.queries.T, self._bounds[:-1], self._bounds[1:], strict=True)
        values = [
            value
            for code, start, stop in groups
            for value in function(_Near(self, self._sorted(code, k), self.labels[start:stop]))
        ]
        return [values[place] for place in self._alike]

    def _nearest_codes(
        self, query: NDArray[np.unsignedinteger], k: int
    ) -> tuple[NDArray[np.integer], NDArray[np.intp]]:
        """Returns distances to the codes of the database, and which codes are nearest; they hold at least k items."""
        for database_words, word, out in zip(self.codes, query, self._distances, strict=True):
            np.bitwise_count(np.bitwise_xor(database_words, word, out=self._words), out=out)
        distances: NDArray[np.integer] = (
            self._distances[0] if len(query) == 1 else np.sum(self._distances, axis=0, dtype=np.uint16)
        )

        # The last query's radius is a good first guess.
        while not self._enough(distances, self._radius, k):
            self._radius += 1
        while self._radius > 0:
            self._inside.reverse()
            if not self._enough(distances, self._radius - 1, k):
                self._inside.reverse()
                break
            self._radius -= 1
        return distances, np.flatnonzero(self._inside[0])

    def _enough(self, distances: NDArray[np.integer], radius: int, k: int) -> bool:
        np.less_equal(distances, radius, out=self._inside[0])
        np.copyto(self._weights, self._inside[0])
        return bool(self._weights @ self._real_counts >= k)

    def _sorted(self, code: NDArray[np.unsignedinteger], k: int) -> NDArray[np.unsignedinteger]:
        """Returns the sort keys of a code's nearest items, sorted."""
        distances, chosen = self._nearest_codes(code, k)
        counts = self.counts[chosen]
        ends = counts.cumsum()
        # The items of each chosen code are neighbours in `items`.
        places = np.repeat(self.starts[chosen] - ends + counts, counts)
        places += self.numbers[: ends[-1]]
        keys = np.repeat(distances[chosen].astype(self.items.dtype) << self.place_bits, counts)
        keys |= self.items[places]
        keys.sort()  # all keys differ, so that no stable sort is needed
        return keys


@dataclass(frozen=True)
class _Near:
    """The items nearest to one code, and the queries that have this code.

    Attributes:
        search: where the items come from.
        keys: sort keys of all items within the least distance that holds k items, in the order of their ranking.
        labels: label words of the queries.
    """

    search: _Search
    keys: NDArray[np.unsignedinteger]
    labels: NDArray[np.integer]

    def order(self, k: int) -> NDArray[np.int64]:
        """Returns the first k items of the ranking (k,)."""
        return (self.keys[:k] & ((1 << self.search.place_bits) - 1)).astype(np.int64)

    def relevant(self, k: int) -> list[NDArray[np.bool_]]:
        """Returns for each query whether each of the first k items is relevant (k,)."""
        labels = self.search.database_labels.take(self.order(k), axis=0)
        return [shared(labels, query) for query in self.labels]

    def histograms(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Returns for each query how many items there are at each distance (K + 1,): all, and the relevant ones."""
        levels = self.search.levels
        distances = (self.keys >> self.search.place_bits).astype(np.int64)
        everything = np.bincount(distances, minlength=levels)
        return [(everything, np.bincount(distances[hits], minlength=levels)) for hits in self.relevant(len(distances))]


def _check(codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor) -> None:
    if len(codes) == 0 or len(database_codes) == 0:
        raise UserError(f"{len(codes)} queries and {len(database_codes)} items to search: both must be there")
    if codes.dim() != 2 or codes.shape[1:] != database_codes.shape[1:]:
        raise UserError(
            f"codes of shapes {tuple(codes.shape)} and {tuple(database_codes.shape)} have no distance;"
            " encode queries and database in the same way"
        )
    for what, checked in (("queries", codes), ("database", database_codes)):
        if not bool((checked.abs() == 1).all()):
            raise UserError(f"the codes of the {what} are not all -1 or +1; use hash_codes")
    if (
        labels.shape[1:] != database_labels.shape[1:]
        or len(labels) != len(codes)
        or len(database_labels) != len(database_codes)
    ):
        raise UserError(
            f"labels of shapes {tuple(labels.shape)} and {tuple(database_labels.shape)} do not belong to these codes"
        )


def _average_precision(relevant: NDArray[np.bool_]) -> float:
    """Returns the average precision of a ranking."""
    places = np.flatnonzero(relevant) + 1
    return float((np.arange(1, len(places) + 1) / places).sum()) / max(len(places), 1)
