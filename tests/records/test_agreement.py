"""A record whose numbers are not what its outcomes say, or that contradicts itself, is refused, whatever its seal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from creditflow.core.errors import UserError
from creditflow.core.files import fingerprint, json_bytes, seal
from creditflow.records.record import Keys, Metric, read_record, write_record

EPSILONS = [0.0, 0.1]
EXAMPLES = np.arange(5)
RNG = np.random.default_rng(0)
CORRECT = np.array([[True, True, True, False, True], [True, False, False, False, False]])
PRECISIONS = RNG.random((2, 5))
SHARES, SIZES = (RNG.random((2, 5)).astype(np.float32) for _ in range(2))
DISTANCES = np.array([0.3, np.inf, 0.1, 0.2, 0.5], dtype=np.float32)
RATIOS = RNG.random(5).astype(np.float32)


def rows(name: str, values: list[float]) -> list[Metric]:
    return [Metric(name, epsilon, value, 5) for epsilon, value in zip(EPSILONS, values, strict=True)]


def lower_median(row: Any) -> float:
    return float(sorted(row.tolist())[2])


RECORDS: dict[str, tuple[str, str, list[Metric], dict[str, Any]]] = {
    "evaluate": ("classification", "clean", [Metric("accuracy", None, 0.8, 5)], {"correct": CORRECT[:1]}),
    "attack": (
        "classification",
        "pgd",
        [
            *rows("robust_accuracy", [0.8, 0.2]),
            Metric("median_distance", None, float(np.float32(0.3)), 5),
            Metric("zero_gradient_share", None, 0.25, 5),
        ],
        {"correct": CORRECT, "distance": DISTANCES, "perturbation": SIZES},
    ),
    "retrieve": (
        "retrieval",
        "clean",
        [
            Metric("map", None, float(PRECISIONS[0].mean()), 5),
            Metric("map_tie_averaged", None, float(PRECISIONS[1].mean()), 5),
        ],
        {"ap": PRECISIONS[:1], "ap_tie_averaged": PRECISIONS[1:]},
    ),
    "attack_retrieval": (
        "retrieval",
        "hag",
        [
            *rows("map", PRECISIONS.mean(1).tolist()),
            *rows("map_tie_averaged", PRECISIONS[::-1].mean(1).tolist()),
            *rows("flipped_bits", SHARES.mean(1).tolist()),
            *rows("median_perturbation", [lower_median(row) for row in SIZES]),
            *rows("largest_perturbation", SIZES.max(1).tolist()),
        ],
        {"ap": PRECISIONS, "ap_tie_averaged": PRECISIONS[::-1], "flipped_bits": SHARES, "perturbation": SIZES},
    ),
    "measure_nullspace": (
        "regression",
        "clean",
        [
            Metric("nullspace_ratio", None, float(RATIOS.mean()), 5),
            Metric("nullspace_ratio_deviation", None, float(RATIOS.std(ddof=1)), 5),
        ],
        {"nullspace_ratio": RATIOS},
    ),
}


def written(folder: Path, stage: str) -> Path:
    task, attack, metrics, outcomes = RECORDS[stage]
    gradient = "none" if attack == "clean" else "exact"
    settings: dict[str, Any] = {} if attack == "clean" else {"attack": attack, "gradient": gradient}
    if attack != "clean":
        settings["epsilons"] = EPSILONS
    path = folder / "seed0.json"
    keys = Keys("e", task, "d", "b", "bp", 0, attack, gradient)
    later = Metric("test_accuracy", None, 0.1, 3, epoch=1)  # what training measured follows from no outcome
    made = {"config_hash": fingerprint(settings)}
    facts = {"settings": settings, "checks": {"zero_gradients": 0.25}, "provenance": made}
    write_record(path, keys, [*metrics, later], outcomes | {"example": EXAMPLES}, **facts)
    return path


def edit(path: Path, change: Callable[[dict[str, Any]], object], *, sealed: bool) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["seal"]
    change(content)
    path.write_bytes(json_bytes(seal(content) if sealed else content))


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_record(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text
    return text


CASES = [(stage, index) for stage, (_, _, metrics, _) in RECORDS.items() for index in range(len(metrics))]


@pytest.mark.parametrize(("stage", "index"), CASES)
def test_every_number_that_outcomes_determine_must_be_theirs(stage: str, index: int, tmp_path: Path) -> None:
    path = written(tmp_path, stage)
    read_record(path)
    metric = RECORDS[stage][2][index]
    edit(path, lambda content: content["metrics"][index].update(value=metric.value + 0.01), sealed=True)
    assert f"its {metric.metric}" in refused(path)


@pytest.mark.parametrize(("stage", "index"), [case for case in CASES if case != ("attack", 3)])
def test_the_number_of_examples_must_be_that_of_the_outcomes(stage: str, index: int, tmp_path: Path) -> None:
    path = written(tmp_path, stage)
    edit(path, lambda content: content["metrics"][index].update(n=6), sealed=True)
    assert "says n 6, its outcomes have 5 examples" in refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["metrics"].pop(0), "its outcomes do not belong to its metrics|at the epsilons"),
        (lambda content: content["metrics"][1].update(epsilon=0.3), r"are at the epsilons \[0.0, 0.3\]"),
        (lambda content: content["keys"].update(attack="fgsm"), "keys say attack fgsm, its settings say pgd"),
        (lambda content: content["keys"].update(gradient="feedback"), "keys say gradient feedback, .* say exact"),
        (lambda content: content["metrics"][0].update(metric="accuracy"), "do not belong|epsilons"),
        (lambda content: content["metrics"].clear(), "its outcomes have 'correct', its metrics no accuracy or robust_"),
        (lambda content: [metric.update(epoch=3) for metric in content["metrics"]], "its outcomes have 'correct'"),
        (lambda content: [metric.update(metric="x") for metric in content["metrics"][:2]], "outcomes have 'correct'"),
        (lambda content: content["settings"].update(epsilons=[0.0, 0.3]), "at the epsilons|not those whose hash"),
        (lambda content: content["settings"].update(images=7), "its settings are not those whose hash its provenance"),
        (lambda content: content.pop("settings"), "its settings are not those whose hash its provenance has"),
        (lambda content: content["provenance"].update(config_hash="0"), "not those whose hash its provenance has"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: Any, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, "attack")
    edit(path, change, sealed=True)
    with pytest.raises(UserError, match=message):
        read_record(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: None,
        lambda content: content["metrics"][0].update(value=1.0),
        lambda content: content["metrics"][0].update(n=1000),
        lambda content: content.update(provenance={"git_commit": "another"}),
        lambda content: content["keys"].update(seed=1),
    ],
)
def test_without_its_seal_no_record_is_read(change: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "attack")
    edit(path, change, sealed=False)
    assert "has no seal" in refused(path)


def test_a_record_that_borrows_the_outcomes_of_another_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "attack")
    copy = path.with_name("seed1.json")
    copy.write_bytes(path.read_bytes())
    assert "not a whole record" in refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(settings=[1]),
        lambda content: content.update(checks=3),
        lambda content: content["metrics"][0].update(value="much"),
        lambda content: content["metrics"][0].update(value=10**400),
        lambda content: content["metrics"][0].update(metric=["robust_accuracy"]),
        lambda content: content["metrics"][0].update(epsilon="x", value=0.1),
        lambda content: content["metrics"][-1].update(value="0.1"),  # what training measured follows from no outcome
        lambda content: content["metrics"][-1].update(value=None),
        lambda content: content["metrics"][-1].update(value=True),
        lambda content: content["metrics"][-1].update(n="3"),
        lambda content: content["metrics"][-1].update(epoch=1.5),
        lambda content: content["keys"].update(seed=0.0),
        lambda content: content["keys"].update(seed=False),
        lambda content: content["keys"].update(dataset=None),
        lambda content: content.update(provenance=[1]),
        lambda content: content.update(metrics={"a": 1}),
        lambda content: content.update(keys=None),
    ],
)
def test_what_is_no_record_is_one_line_though_its_seal_fits(change: Any, tmp_path: Path) -> None:
    path = written(tmp_path, "attack")
    edit(path, change, sealed=True)
    refused(path)
