"""Retrieval as a user runs it: from nothing to tables, figures and exported results on the digits; what stops it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from creditflow.records.record import read_record
from creditflow.retrieval.ranking import average_precisions
from helpers import project, snakemake, stage

pytestmark = pytest.mark.slow

TINY = """
description: retrieval of digits, in seconds
datasets:
  low: {source: digits, classes: [0, 1, 2, 3, 4]}
  all_digits: {source: digits}
backbones: [small_cnn]
rules: [bp, frsf, brsf]
seeds: [0]
threads: 1
pretrain: {dataset: low, settings: {epochs: 2, batch_size: 32, learning_rate: 2.0e-3}}
finetune:
  datasets: [all_digits]
  settings: {epochs: 4, batch_size: 16, learning_rate: 2.0e-3, head_learning_rate: 1.0e-2, angle_images: 16}
retrieval:
  bits: 16
  top: 100
  proxy_learning_rate: 0.02
  protocols: {all_digits: {kind: per_class, query: 6, train: 30}}
gradients: [exact, feedback]
attacks:
  hag: {epsilons: [0, 0.1], images: 40, batch_size: 20}
  sdha: {rules: [frsf], epsilons: [0, 0.1], images: 40, batch_size: 40}
  hamming_pgd: {epsilons: [0, 0.1, 0.3], images: 40, batch_size: 40, settings: {iterations: 5}}
tables: {table2: {}, retrieval_attacks: {}, published: {}}
figures: {figure1: {}, figure3: {}, precision_recall: {}, retrieved: {queries: 2, attack: hamming_pgd, rule: bp}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose tiny retrieval has been run."""
    folder = project(tmp_path_factory.mktemp("project"), tiny=TINY)
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


def test_everything_that_was_promised_is_there(finished: Path) -> None:
    results = finished / "results/tiny"
    for name in ("table2", "retrieval_attacks", "published"):
        assert (results / f"tables/{name}.md").stat().st_size > 50
    for name in ("figure1", "figure3", "precision_recall", "retrieved"):
        assert (results / f"figures/{name}.png").stat().st_size > 5000
    summary = pd.read_parquet(results / "summary.parquet")
    clean = summary[(summary.attack == "clean") & (summary.metric == "map")].set_index("rule").value
    assert (clean > 0.5).all()  # both rules learn it; chance is about 0.2
    strong = summary[(summary.attack == "hamming_pgd") & (summary.metric == "map") & (summary.gradient == "exact")]
    assert (
        strong.sort_values("epsilon")
        .groupby("rule")
        .value.agg(list)
        .map(lambda values: values[0] > values[1] > values[2])
    ).all()
    hag = summary[(summary.attack == "hag") & (summary.metric == "map")]
    assert set(hag[hag.rule == "bp"].gradient) == {"exact"}  # it has no feedback weights but its own
    assert set(hag[hag.rule == "brsf"].gradient) == {"exact", "feedback"}
    for rule in ("frsf", "brsf"):  # the attacker's gradient is the one that was asked for
        both = [
            read_record(results / f"attack_retrieval/all_digits/small_cnn/{rule}/hamming_pgd/{gradient}/seed0.json")
            for gradient in ("exact", "feedback")
        ]
        flipped = [float(record.outcomes["flipped_bits"][1].mean()) for record in both]
        assert flipped[0] > flipped[1] + 0.02


def test_a_record_says_what_its_codes_say(finished: Path) -> None:
    model = "all_digits/small_cnn/frsf"
    codes = load_file(finished / f"results/tiny/codes/{model}/seed0.safetensors")
    assert len(codes["query_codes"]) == 60 and len(codes["train_codes"]) == 300
    assert len(codes["database_codes"]) == 1797 - 60 - 300
    record = read_record(finished / f"results/tiny/retrieve/{model}/seed0.json")
    found = average_precisions(
        codes["query_codes"], codes["query_labels"], codes["database_codes"], codes["database_labels"], 100
    )
    assert record.keys.task == "retrieval"
    assert np.array_equal(record.outcomes["ap"][0], found.average.numpy())
    metrics = {metric.metric: metric.value for metric in record.metrics if metric.at is None and metric.epoch is None}
    assert metrics["map"] == float(found.average.mean()) and metrics["map_tie_averaged"] == float(
        found.tie_averaged.mean()
    )
    history = [metric.value for metric in record.metrics if metric.metric == "test_map"]
    assert len(history) == 4
    attacked = read_record(finished / f"results/tiny/attack_retrieval/{model}/hag/exact/seed0.json")
    assert attacked.outcomes["ap"].shape == (2, 40)
    assert np.array_equal(attacked.outcomes["ap"][0], found.average[attacked.outcomes["example"]].numpy())  # epsilon 0
    assert attacked.outcomes["attacked_found"].shape == (4, 10, 1, 8, 8)
    assert {metric.metric for metric in attacked.metrics} == {
        "map",
        "map_tie_averaged",
        "flipped_bits",
        "median_perturbation",
        "largest_perturbation",
    }


def test_results_are_exported_and_a_second_run_does_nothing(finished: Path, tmp_path: Path) -> None:
    done = snakemake(finished, "-n", "tiny")
    assert "Nothing to be done" in done.stdout, done.stdout
    exported = stage("export", "--experiment", "tiny", "--output", tmp_path, folder=finished)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "tiny/figures/retrieved.png").exists()


def test_stages_refuse_what_does_not_fit(finished: Path) -> None:
    results = finished / "results"
    model = "all_digits/small_cnn/bp"
    common = [
        "--model",
        results / f"tiny/finetune/{model}/seed0.safetensors",
        "--data",
        results / "data/digits/prepared.safetensors",
    ]
    right = {"bits": 16, "top": 100, "loss": {}, "protocol": {"kind": "per_class", "query": 6, "train": 30}}

    def refused(retrieval: dict[str, object], message: str, codes: str = model) -> None:
        done = stage(
            "retrieve",
            *common,
            "--retrieval",
            json.dumps(retrieval),
            "--codes",
            results / f"tiny/codes/{codes}/seed0.safetensors",
            "--record",
            finished / "never.json",
        )
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
        assert not (finished / "never.json").exists()

    refused(right | {"bits": 32}, "gives 16 numbers")
    refused(right | {"top": 0}, "top must be at least 1, not 0")
    refused(right | {"bits": 0}, "bits must be at least 1, not 0")
    refused(right | {"protocol": {"kind": "per_class", "query": 5, "train": 30}}, "codes of another protocol")
    refused(right, "codes of another model", "all_digits/small_cnn/frsf")
    refused({}, "bits is missing")
    refused({"bits": 16, "top": 100}, "protocol is missing")
    refused(right | {"protocol": {"kind": "lists"}}, "'database' split")
    refused(right | {"protocol": {"kind": "per_class", "query": 500, "train": 30}}, "500 queries per class to draw")


def test_a_network_of_zeros_is_refused(finished: Path, tmp_path: Path) -> None:
    from creditflow.models.storage import load_model, save_model

    model = load_model(finished / "results/tiny/finetune/all_digits/small_cnn/bp/seed0.safetensors")
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    save_model(tmp_path / "zeros.safetensors", model)
    right = {"bits": 16, "top": 100, "loss": {}, "protocol": {"kind": "per_class", "query": 6, "train": 30}}
    done = stage(
        "encode",
        "--model",
        tmp_path / "zeros.safetensors",
        "--data",
        finished / "results/data/digits/prepared.safetensors",
        "--retrieval",
        json.dumps(right),
        "--output",
        tmp_path / "codes.safetensors",
    )
    assert done.returncode == 2 and "all outputs of the hash layer are zero" in done.stderr
    assert not (tmp_path / "codes.safetensors").exists()
