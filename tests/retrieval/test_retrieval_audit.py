"""The audit of retrieval: average precisions of queries in place of right and wrong images, from records to figures."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from creditflow.attacks.hash_judge import Queries, get_hash_attack, run_hash_attack
from creditflow.attacks.kinds import REQUIRED_OF_RETRIEVAL
from creditflow.core import plugins
from creditflow.records.record import Keys, Metric, Record, read_record, write_record
from creditflow.reporting.figure import Figure
from creditflow.retrieval.codes import hash_codes
from creditflow.retrieval.metrics import chance
from creditflow.retrieval.storage import Encoded
from creditflow.verdict.verdicts import audit
from helpers import small_model, stage, subset

N_QUERIES, BITS = 200, 8
SETTINGS = {"epsilons": [0.05], "attacks": ["hag", "mainstay_pgd"], "claim": "hag"}

#: mAP of a plain network, and of a rule that only fools HAG through its feedback weights.
PLAIN = {"clean none": 0.9, "hag exact": 0.3, "mainstay_pgd exact": 0.25}
MASKED = {**PLAIN, "hag feedback": 0.7, "mainstay_pgd feedback": 0.6}


def precisions(level: float, seed: int) -> NDArray[np.float64]:
    """Average precisions (1, queries) with this mean: the same queries are hard in every seed."""
    spread = 0.1 * np.linspace(-1, 1, N_QUERIES) + 0.02 * np.random.default_rng(seed).standard_normal(N_QUERIES)
    values: NDArray[np.float64] = np.clip(level + spread - spread.mean(), 0, 1)[None]
    return values


def written(folder: Path, rule: str, levels: dict[str, float], **checks: float) -> list[Path]:
    """Writes records of three seeds with the mAP of each "attack gradient", and returns their paths."""
    paths = []
    for seed in range(3):
        for condition, level in levels.items():
            attack, gradient = condition.split()
            values = precisions(level, seed)
            facts = {"chance": 0.1} if attack == "clean" else checks
            paths.append(folder / f"{rule}-{attack}-{gradient}-{seed}.json")
            write_record(
                paths[-1],
                Keys("tiny", "retrieval", "toy", "small_cnn", rule, seed, attack, gradient),
                [Metric("map", None if attack == "clean" else 0.05, float(values.mean()), N_QUERIES)],
                {"ap": values, "example": np.arange(N_QUERIES)},
                checks=facts,
            )
    return paths


def records(folder: Path, rule: str, levels: dict[str, float], **checks: float) -> list[Record]:
    return [read_record(path) for path in written(folder, rule, levels, **checks)]


def audited(parts: list[Record]) -> pd.DataFrame:
    return audit(parts, SETTINGS, "ap", REQUIRED_OF_RETRIEVAL).set_index("rule")


def test_the_stage_audits_records_of_retrieval_and_readers_see_map(tmp_path: Path) -> None:
    listing = tmp_path / "records.txt"
    paths = [*written(tmp_path, "bp", PLAIN), *written(tmp_path, "frsf", MASKED)]
    listing.write_text("\n".join(map(str, paths)), encoding="utf-8")
    output = tmp_path / "audit.parquet"
    done = stage("audit", "--records-list", listing, "--settings", json.dumps(SETTINGS), "--output", output)
    assert done.returncode == 0, done.stderr
    assert "toy small_cnn frsf at 0.05: masked; no difference beyond 5 points" in done.stdout
    frame = pd.read_parquet(output)
    row = frame.set_index("rule").loc["frsf"]
    assert row["map hag feedback"] == pytest.approx(0.7, abs=0.01)
    assert row.worst == pytest.approx(row["map mainstay_pgd exact"]) and row.decided_by == "mainstay_pgd exact"
    assert row.reference_clean == pytest.approx(0.9, abs=0.02)  # all of its precisions lie below 1
    assert not [column for column in frame if column.startswith("accuracy")]
    for name, words in {
        "audit": ("Numbers are mAP.", f"{N_QUERIES} queries x 3 seeds", "Claim: HAG, own feedback weights", "masked"),
        "audit_guards": ("mAP under", "PGD on the classes' code, exact gradient: 25.0"),
    }.items():
        table = plugins.load("table", name).TABLE
        table.write([frame], plugins.settings_class("table", name)(), "A caption.", tmp_path / name)
        text = (tmp_path / f"{name}.md").read_text(encoding="utf-8")
        assert all(word in text for word in words), text
    figure: Figure = plugins.load("figure", "audit").FIGURE
    canvas = figure.draw(frame, plugins.settings_class("figure", "audit")())
    assert [axes.get_xlabel() for axes in canvas.axes] == ["mAP under attack (%)"]
    labels = {text.get_text() for text in canvas.legends[0].get_texts()}
    assert labels == {
        "claim: HAG, exact gradient or own feedback weights",
        "HAG, exact gradient",
        "PGD on the classes' code, exact gradient",
        "PGD on the classes' code, own feedback weights",
        "mAP without an attack",
        "worst case over all attacks",
        "worst case of the reference",
    }


def test_a_worst_case_without_the_codes_of_classes_or_with_zero_gradients_is_not_sound(tmp_path: Path) -> None:
    plain, better = records(tmp_path, "bp", PLAIN), {name: level + 0.2 for name, level in MASKED.items()}
    better["clean none"] = 0.9
    assert audited([*plain, *records(tmp_path, "frsf", better)]).net_effect["frsf"] == "more robust"
    lacking = [part for part in plain if part.keys.attack != "mainstay_pgd"]
    row = audited([*lacking, *records(tmp_path, "frsf", better)]).loc["frsf"]
    assert row.net_effect == "unresolved"
    assert "bp: no attack on the code of the query's classes without a fired guard" in row.reason
    row = audited([*plain, *records(tmp_path, "frsf", better, zero_gradients=0.02)]).loc["frsf"]
    assert row.net_effect == "unresolved" and "zero gradients" in row.guards
    assert "frsf: no attack on the query's own code without a fired guard" in row.reason


def test_a_reference_that_finds_no_more_than_a_random_order_resolves_nothing(tmp_path: Path) -> None:
    parts = records(tmp_path, "bp", PLAIN | {"clean none": 0.12}) + records(tmp_path, "frsf", MASKED)
    row = audited(parts).loc["frsf"]
    assert row.claim_verdict == row.net_effect == "unresolved"
    assert "bp: clean mAP 12.1%" in row.reason or "bp: clean mAP 12.0%" in row.reason
    assert "is not 5 points above chance (10.0%)" in row.reason


@pytest.mark.parametrize("top", [2, 5])
def test_chance_is_the_mean_over_all_orders(top: int) -> None:
    queries, items = torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1, 1, 1])
    codes = torch.randint(0, 2, (5, BITS), generator=torch.Generator().manual_seed(0), dtype=torch.int8) * 2 - 1

    def precision(label: int, order: tuple[int, ...]) -> float:
        hits = [bool(items[item] == label) for item in order[:top]]
        values = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
        return float(np.mean(values)) if values else 0.0

    expected = np.mean([precision(label, order) for label in range(3) for order in permutations(range(5))])
    assert chance(Encoded(codes[:3], queries), Encoded(codes, items), top) == pytest.approx(expected)


class Hidden(nn.Module):
    """A network whose gradient is zero at every image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.network(x)
        return outputs.detach() + 0 * outputs


class Brightness(nn.Module):
    """All bits are those of the mean pixel above one half: within a large epsilon an attack flips all of them."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.mean((1, 2, 3)) - 0.5)[:, None] * torch.ones(BITS)


@pytest.mark.parametrize("name", ["hag_100", "hamming_pgd", "mainstay_pgd"])
def test_a_zero_gradient_counts_while_a_bit_is_still_to_flip(name: str) -> None:
    data = subset(12)

    def shares(model: nn.Module, **settings: Any) -> tuple[float, float]:
        codes = hash_codes(model(data.batch(torch.arange(12))[0]).detach())
        result = run_hash_attack(
            get_hash_attack(name),
            plugins.settings_class("hash_attack", name)(iterations=20, **settings),
            model.eval(),
            Queries(data, torch.arange(12), Encoded(codes, data.labels)),
            [0.5],
            batch_size=12,
            seed=0,
        )
        return result.zero_gradients, float((result.codes != result.clean_codes).float().mean())

    assert shares(Hidden(small_model(n_classes=BITS)))[0] == 1
    # mainstay_pgd leaves flipped bits alone, so that its gradient is zero at most of these steps.
    assert shares(Brightness()) == (0, 1)
