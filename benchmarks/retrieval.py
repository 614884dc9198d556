"""Ranking of hash codes beside the usual loop over queries, which sorts each query's distances with NumPy's argsort.

    python benchmarks/retrieval.py [--rounds N] [--threads N]

The loop is the one that most experiments copy. Its codes are float32 and its labels are zeros and ones in int8, as its
loader of CIFAR-10 makes them; NumPy multiplies these without BLAS. With labels in float32 the loop is faster, and has a
line of its own. NumPy's argsort uses the processor's vector instructions since NumPy 2.0, so that ratios depend on the
machine.

Both give mAP@5000 of 1,000 queries against 59,000 codes of 32 bits in ten classes (CIFAR-10's sizes). Codes come from
two sources. "trained" has about as many different codes as a trained network gives (LeNet-5 of `retrieval_fashion`: 362
for 1,000 queries, 5,700 for 64,000 images). "different" has hardly two equal codes, which is the worst case: class
codes with a quarter of the bits flipped at random. The two functions take turns within each round, and the ratio is the
median over rounds. Ours is timed with the order of the database alone, as the loop is, and also with the expectation
over ties.

Then come the sizes of NUS-WIDE: 2,100 queries against 148,332 codes with 21 labels each. Peak memory is that of the
process after each part; it includes the data, torch and SciPy.

The last line is one JSON object {name: number}.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from _common import parser_of, peak_memory

from creditflow.retrieval.ranking import average_precisions, mean_average_precision

K, BITS = 5000, 32


def drawn(
    queries: int, items: int, n_labels: int, kind: str, *, several: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes and labels; the code is the first label's with flipped bits: one of its usual patterns, or any."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randint(0, 2, (n_labels, BITS), generator=generator) * 2 - 1
    patterns = torch.where(torch.rand(n_labels, 2000, BITS, generator=generator) < 0.1, -1, 1)
    usual = torch.arange(1, 2001.0) ** -1.33  # how often each pattern comes

    def part(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, n_labels, (n,), generator=generator)
        if kind == "trained":
            flips = patterns[labels, torch.multinomial(usual, n, replacement=True, generator=generator)]
        else:
            flips = torch.where(torch.rand(n, BITS, generator=generator) < 0.25, -1, 1)
        codes = (centres[labels] * flips).to(torch.int8)
        if not several:
            return codes, labels
        more = torch.rand(n, n_labels, generator=generator) < 0.1
        return codes, more.scatter(1, labels[:, None], True).to(torch.uint8)

    return *part(queries), *part(items)


def loop(
    codes: Tensor, labels: Tensor, database_codes: Tensor, database_labels: Tensor, kind: type[np.generic] = np.int8
) -> float:
    """Measures mAP as hashing code does: labels as zeros and ones; a product, an argsort and a sum for each query."""
    query, database = codes.numpy().astype(np.float32), database_codes.numpy().astype(np.float32)
    query_hot, database_hot = (
        np.eye(int(database_labels.max()) + 1, dtype=kind)[part.numpy()] for part in (labels, database_labels)
    )
    total = 0.0
    for code, label in zip(query, query_hot, strict=True):
        relevant = (database_hot @ label > 0).astype(np.float32)
        distances = 0.5 * (BITS - database @ code)
        top = relevant[np.argsort(distances)][:K]
        n = int(top.sum())
        if n:
            total += float(np.mean(np.arange(1, n + 1) / (np.flatnonzero(top) + 1.0)))
    return total / len(query)


def seconds(function: Callable[..., Any], data: tuple[Tensor, ...]) -> float:
    start = time.perf_counter()
    function(*data)
    return time.perf_counter() - start


OURS: dict[str, Callable[..., Any]] = {
    "order": lambda *data: mean_average_precision(*data, K),
    "order_and_ties": lambda *data: average_precisions(*data, K),
}
LOOPS: dict[str, Callable[..., Any]] = {"loop": loop, "loop_float32": lambda *data: loop(*data, kind=np.float32)}


def compare(data: tuple[Tensor, ...], name: str, rounds: int) -> dict[str, float]:
    """Prints and returns the ratios for one database."""
    before = peak_memory()
    for function in OURS.values():
        function(*data)  # warm up
    results = {f"{name}_peak_mib": peak_memory()}
    different = [len(data[index].unique(dim=0)) for index in (0, 2)]
    print(f"{name}: {different[0]} different codes of queries, {different[1]} of the database")
    print(f"  peak memory {peak_memory():.0f} MiB, {before:.0f} before")
    taken: dict[str, list[float]] = {kind: [] for kind in [*OURS, *LOOPS]}
    for index in range(rounds):
        for kind in taken if index % 2 else reversed(taken):
            taken[kind].append(seconds({**OURS, **LOOPS}[kind], data))
    for kind, times in taken.items():
        print(f"  {kind}: {statistics.median(times):.3f} s")
    for other in LOOPS:
        for kind in OURS:
            ratio = statistics.median(a / b for a, b in zip(taken[other], taken[kind], strict=True))
            results[f"{name}_{other}_over_{kind}"] = ratio
            print(f"  {other} takes {ratio:.1f} times as long as {kind}")
    print(f"  mAP@{K}: {OURS['order'](*data):.5f}, loop {loop(*data):.5f} (its order within ties is arbitrary)")
    return results


def main() -> None:
    args = parser_of(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    results: dict[str, float] = {}
    for kind in ("trained", "different"):
        results |= compare(drawn(1000, 59_000, 10, kind, several=False), kind, args.rounds)
    large = drawn(2100, 148_332, 21, "different", several=True)
    results["nus_wide_seconds"] = seconds(OURS["order_and_ties"], large)
    results["nus_wide_peak_mib"] = peak_memory()
    took, peak = results["nus_wide_seconds"], results["nus_wide_peak_mib"]
    print(f"2,100 queries, 148,332 codes: {took:.1f} s, peak memory {peak:.0f} MiB")
    print(json.dumps({name: round(value, 3) for name, value in results.items()}))


if __name__ == "__main__":
    main()
