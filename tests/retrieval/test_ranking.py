"""Ranking and average precision against the definition, enumeration of all orders of ties, and scikit-learn."""

from itertools import permutations
from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.retrieval.ranking import average_precisions, curves, mean_average_precision, nearest


def drawn(
    seed: int, queries: int, items: int, bits: int, n_labels: int, several: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def labels(n: int) -> Tensor:
        if not several:
            return torch.randint(0, n_labels, (n,), generator=generator)
        return torch.randint(0, 2, (n, n_labels), generator=generator, dtype=torch.uint8)

    def codes(n: int) -> Tensor:
        return torch.randint(0, 2, (n, bits), generator=generator, dtype=torch.int8) * 2 - 1

    return codes(queries), labels(queries), codes(items), labels(items)


def is_relevant(label: Tensor, labels: Tensor) -> list[bool]:
    if labels.dim() == 1:
        return [bool(label == other) for other in labels]
    return [bool((label * other).sum() > 0) for other in labels]


def precision_of(ranking: list[bool]) -> float:
    """AP of a list of relevances, by the definition."""
    precisions = [sum(ranking[: place + 1]) / (place + 1) for place, hit in enumerate(ranking) if hit]
    return sum(precisions) / len(precisions) if precisions else 0.0


def slowly(
    codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, k: int
) -> tuple[list[float], list[float]]:
    """AP@k of each query, in the database's order and averaged over all orders of ties (for few items)."""
    stable, averaged = [], []
    for code, label in zip(codes, labels, strict=True):
        distances = [int((code != other).sum()) for other in database_codes]
        hits = is_relevant(label, database_labels)
        order = sorted(range(len(distances)), key=lambda item: distances[item])
        stable.append(precision_of([hits[item] for item in order[:k]]))
        if len(distances) <= 6:
            orders = [
                order for order in permutations(range(len(distances))) if is_sorted([distances[item] for item in order])
            ]
            averaged.append(float(np.mean([precision_of([hits[item] for item in order[:k]]) for order in orders])))
    return stable, averaged


def is_sorted(values: list[int]) -> bool:
    return values == sorted(values)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 40),
    st.integers(1, 9),
    st.integers(2, 70),
    st.booleans(),
    st.integers(1, 50),
)
def test_average_precision_is_the_definition(
    seed: int, queries: int, items: int, bits: int, n_labels: int, several: bool, k: int
) -> None:
    data = drawn(seed, queries, items, bits, n_labels, several)
    found = average_precisions(*data, k)
    assert found.k == min(k, items)
    assert mean_average_precision(*data, k) == pytest.approx(float(found.average.mean()), abs=1e-12)
    assert found.average.tolist() == pytest.approx(slowly(*data, k)[0], abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(1, 7))
def test_the_expectation_over_ties_is_the_mean_over_all_their_orders(
    seed: int, items: int, bits: int, n_labels: int, several: bool, k: int
) -> None:
    data = drawn(seed, 3, items, bits, n_labels, several)
    assert average_precisions(*data, k).tie_averaged.tolist() == pytest.approx(slowly(*data, k)[1], abs=1e-9)


def test_the_expectation_over_ties_is_what_shuffling_the_database_gives_on_average() -> None:
    codes, labels, database_codes, database_labels = drawn(0, 4, 300, 6, 4, False)
    generator = torch.Generator().manual_seed(1)
    sums = torch.zeros(4, dtype=torch.float64)
    for _ in range(400):
        order = torch.randperm(300, generator=generator)
        sums += average_precisions(codes, labels, database_codes[order], database_labels[order], 37).average
    expected = average_precisions(codes, labels, database_codes, database_labels, 37).tie_averaged
    torch.testing.assert_close(sums / 400, expected, atol=0.01, rtol=0)


def test_without_ties_and_cut_it_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    bits, items = 40, 41
    query = torch.ones(1, bits, dtype=torch.int8)
    distances = torch.randperm(items, generator=generator)  # 0 to 40, each once
    database = torch.ones(items, bits, dtype=torch.int8)
    for code, distance in zip(database, distances.tolist(), strict=True):
        code[:distance] = -1
    labels = torch.randint(0, 2, (items,), generator=generator)
    found = average_precisions(query, torch.ones(1, dtype=torch.int64), database, labels, items)
    expected = average_precision_score(labels.numpy(), -distances.numpy())
    assert float(found.average[0]) == pytest.approx(expected, abs=1e-6)
    assert float(found.tie_averaged[0]) == pytest.approx(expected, abs=1e-12)


def test_what_the_literature_agrees_on() -> None:
    codes = torch.tensor([[1, 1, 1, 1]], dtype=torch.int8)
    database = torch.tensor([[1, 1, 1, 1], [-1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, -1]], dtype=torch.int8)
    one = torch.tensor([1])

    def found(labels: list[int], k: int) -> float:
        return float(average_precisions(codes, one, database, torch.tensor(labels), k).average[0])

    assert found([1, 0, 0, 1], 2) == 1  # divided by the relevant items among the first k, not by all
    assert found([0, 0, 0, 1], 2) == 0  # none among them counts as 0, and is not left out
    assert found([0, 1, 0, 1], 4) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert nearest(codes, database.flip(0), 3).tolist() == [[3, 2, 1]]


def test_ties_stay_in_the_databases_order_whatever_the_threads() -> None:
    data = drawn(3, 20, 500, 5, 3, False)
    whole = average_precisions(*data, 100)
    order = nearest(data[0], data[2], 500)
    torch.set_num_threads(3)
    shared = average_precisions(*data, 100)
    torch.set_num_threads(1)
    torch.testing.assert_close(whole.average, shared.average, rtol=0, atol=0)
    assert torch.equal(order, nearest(data[0], data[2], 500))
    distances = (data[0][:, None] != data[2][None]).sum(2)
    keys = (distances * 1000 + torch.arange(500)).gather(1, order)
    assert bool((keys.diff(dim=1) > 0).all())


def test_long_codes_are_ranked_alike() -> None:
    data = drawn(5, 3, 50, 300, 3, False)
    assert average_precisions(*data, 50).average.tolist() == pytest.approx(slowly(*data, 50)[0], abs=1e-6)


def test_curves_are_the_definition() -> None:
    codes, labels, database_codes, database_labels = data = drawn(2, 6, 80, 7, 3, True)
    found = curves(*data, (1, 10, 80, 81))
    assert found.ranks == (1, 10, 80)
    rankings, by_radius = [], []
    for code, label in zip(codes, labels, strict=True):
        distances = (code != database_codes).sum(1)
        hits = np.array(is_relevant(label, database_labels))
        rankings.append(hits[np.argsort(distances.numpy(), kind="stable")])
        inside = distances.numpy()[None, :] <= np.arange(8)[:, None]
        precision = [hits[row].mean() if row.any() else 0.0 for row in inside]
        by_radius.append((precision, [hits[row].sum() / max(hits.sum(), 1) for row in inside]))
    assert found.precision_at.tolist() == pytest.approx(
        [np.mean([line[:n].mean() for line in rankings]) for n in (1, 10, 80)]
    )
    assert found.radius_precision.tolist() == pytest.approx(np.mean([one for one, _ in by_radius], axis=0))
    assert found.radius_recall.tolist() == pytest.approx(np.mean([one for _, one in by_radius], axis=0))


def test_what_cannot_be_ranked_is_refused_in_one_line() -> None:
    codes, labels, database_codes, database_labels = data = drawn(0, 2, 5, 4, 3, False)
    with pytest.raises(UserError, match="at least 1, not 0"):
        average_precisions(*data, 0)
    with pytest.raises(UserError, match="0 queries and 5 items"):
        average_precisions(codes[:0], labels[:0], database_codes, database_labels, 3)
    with pytest.raises(UserError, match="have no distance"):
        average_precisions(codes[:, :3], labels, database_codes, database_labels, 3)
    with pytest.raises(UserError, match="codes of the database are not all -1 or \\+1"):
        average_precisions(codes, labels, database_codes * 0, database_labels, 3)
    with pytest.raises(UserError, match="do not belong to these codes"):
        average_precisions(codes, labels, database_codes, database_labels[:4], 3)


def test_the_hypergeometric_weights_are_exact_for_large_blocks() -> None:
    # All items at one distance: AP@1 is the share of relevant items, and AP@2 follows by hand.
    codes, database = torch.ones(1, 8, dtype=torch.int8), torch.ones(50_000, 8, dtype=torch.int8)
    labels = (torch.arange(50_000) < 12_345).long()
    share = 12_345 / 50_000
    found = average_precisions(codes, torch.ones(1, dtype=torch.int64), database, labels, 1)
    assert float(found.tie_averaged[0]) == pytest.approx(share, rel=1e-6)
    both = comb(12_345, 2) / comb(50_000, 2)
    only_first = share - both
    expected = both + only_first + only_first / 2
    found = average_precisions(codes, torch.ones(1, dtype=torch.int64), database, labels, 2)
    assert float(found.tie_averaged[0]) == pytest.approx(expected, rel=1e-6)
