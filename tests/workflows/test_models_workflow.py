"""An audit of given models as a user runs it: examples/mine.yaml with networks of examples/my_model.py."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

from creditflow.core import files
from creditflow.models.storage import load_model, read_sidecar
from helpers import ROOT, project, snakemake

pytestmark = pytest.mark.slow

#: What differs from the example, so that it takes seconds.
SMALL = """
extends: example
description: two seeds of the example
models: {mine: {factory: "my_model.py:make_mine"}, plain: {factory: "my_model.py:make_reference"}}
seeds: [0, 1]
attacks:
  pgd: {epsilons: [0.1], images: 100, batch_size: 100}
  transfer: null
  cascade:
    epsilons: [0.1]
    images: 100
    batch_size: 100
    settings: {apgd_scaled: {steps: 20}, apgd_targeted: null, square: {queries: 50}, transfer: {steps: 5}}
audit: {epsilons: [0.1], attacks: [pgd, cascade]}
tables: {transfer_matrix: null}
figures: {audit: null, transfer_matrix: null}
"""


@pytest.fixture(scope="module")
def finished(built_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """The finished audit of two networks."""

    def build(folder: Path) -> None:
        example = (ROOT / "examples/mine.yaml").read_text(encoding="utf-8")
        project(folder, example=example, small=SMALL)
        (folder / "my_model.py").write_bytes((ROOT / "examples/my_model.py").read_bytes())
        spec = importlib.util.spec_from_file_location("my_model", folder / "my_model.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (folder / "weights").mkdir()
        for name, make in (("mine", module.make_mine), ("reference", module.make_reference)):
            for seed in range(2):
                torch.manual_seed(seed)
                torch.save(module.train(make(), 6).state_dict(), folder / f"weights/{name}_{seed}.pt")
        done = snakemake(folder, "small")
        assert done.returncode == 0, done.stdout

    return built_once("given_models", build)


def test_the_verdict_of_a_model_with_a_lying_backward_pass(finished: Path) -> None:
    audit = files.read_parquet(finished / "results/small/audit.parquet").set_index("rule")
    mine, plain = audit.loc["mine"], audit.loc["plain"]
    assert (mine.claim, mine.claim_verdict) == ("pgd own", "masked"), mine.to_dict()
    assert mine.net_effect in ("no difference beyond 5 points", "less robust", "unresolved")
    assert plain.net_effect == "" and plain["accuracy pgd own"] == plain["accuracy pgd exact"]
    assert mine["accuracy pgd own"] - mine["accuracy pgd exact"] > 0.2
    table = (finished / "results/small/tables/audit.md").read_text(encoding="utf-8")
    assert "masked" in table and "these networks only" in table
    matrix = (finished / "results/small/tables/gradient_matrix.md").read_text(encoding="utf-8")
    assert "Its own gradient" in matrix and "Model" in matrix
    overview = pd.read_csv(finished / "results/small/tables/overview.csv")
    assert {"exact", "own"} <= set(overview.gradient)


def test_models_are_stored_with_what_their_backward_pass_is_worth(finished: Path) -> None:
    for rule, verdict, culprits in (("mine", "surrogate", ["1", "3", "5"]), ("plain", "honest", [])):
        path = finished / f"results/small/model/all_digits/given_models/{rule}/seed1.safetensors"
        sidecar = read_sidecar(path)
        assert sidecar["gradient"]["verdict"] == verdict and sidecar["gradient"]["culprits"] == culprits
        assert sidecar["settings"]["factory_sha256"] == files.file_sha256(finished / "my_model.py")
        name = {"mine": "mine", "plain": "reference"}[rule]
        stored = torch.load(finished / f"weights/{name}_1.pt", weights_only=True)
        assert sidecar["settings"]["weights"] == files.file_sha256(finished / f"weights/{name}_1.pt")
        assert all(torch.equal(tensor, stored[key]) for key, tensor in load_model_in(finished, path).items())
        record = json.loads(
            (finished / f"results/small/attack/all_digits/given_models/{rule}/pgd/own/seed1.json").read_text("utf-8")
        )
        assert record["settings"]["backward_pass"] == verdict


def load_model_in(folder: Path, path: Path) -> dict[str, torch.Tensor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return load_model(path).state_dict()


def planned(folder: Path, *options: str) -> dict[str, int]:
    """The number of jobs of each rule that a dry-run would run."""
    said = snakemake(folder, "small", "-n", *options).stdout
    rows = [line.split() for line in said.partition("Job stats:")[2].splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def test_a_changed_factory_or_file_of_weights_makes_its_models_again(finished: Path) -> None:
    assert planned(finished) == {}
    weights = finished / "weights/mine_1.pt"
    content = weights.read_bytes()
    try:
        weights.write_bytes(content + b"\0")
        assert planned(finished)["import_model"] == 1
    finally:
        weights.write_bytes(content)
    files.write_atomically(finished / "my_model.py", (finished / "my_model.py").read_bytes() + b"# changed\n")
    assert planned(finished)["import_model"] == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("input: {size: 9}", "cannot take images (1, 9, 9) in [0, 1]"),
        ("models: {mine: {sha256: [deadbeef, 89abcdef]}}", "its SHA-256 begins with"),
        ("models: {mine: {weights: 'nowhere_{seed}.pt'}}", "models.mine.weights: there is no file nowhere_0.pt"),
        ("models: {mine: {factory: 'nowhere.py:make'}}", "models.mine.factory: there is no file nowhere.py"),
        ("datasets: {all_digits: {classes: [0, 1, 2]}}", "gives 10 numbers for each image, but the data has 3 classes"),
    ],
)
def test_models_that_do_not_fit_end_in_one_line(more: str, message: str, finished: Path) -> None:
    name = "broken"
    text = f"extends: small\ndescription: it does not fit\n{more}\n"
    (finished / f"config/experiments/{name}.yaml").write_text(text, encoding="utf-8")
    model = f"results/{name}/model/all_digits/given_models/mine/seed0.json"
    done = snakemake(finished, model, "--quiet", "all")
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if message in line]
    assert lines, done.stdout
