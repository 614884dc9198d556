"""Populations as a user runs them: from nothing to tables, figures and exported results; what stops them."""

import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.prepared import load_prepared
from creditflow.models.storage import load_feedback, load_model, read_sidecar
from creditflow.populations.network import Network, forward
from creditflow.populations.selection import chosen_rate, scores
from creditflow.populations.storage import load_population
from creditflow.records.record import read_record
from creditflow.workflow.loading import load_experiment
from helpers import ROOT, as_forks, project, snakemake, stage

TINY = """
description: populations on digits, in seconds
datasets:
  all_digits: {source: digits}
rules: [bp, pepita]
seeds: [0, 1]
threads: 1
population:
  datasets: [all_digits]
  settings:
    hidden: [30]
    epochs: 12
    batch_size: 32
    dropout: 0.1
    optimizer: {momentum: 0.9, drop_epochs: [9]}
    adversary: {epsilon: 0.1, steps: 5, step: 0.03}
    validation_images: 200
    rules: {pepita: {rule: {output_error: second}}}
  variants:
    natural:
      settings: {curve_images: 50}
      learning_rates: {all_digits: {bp: [0.1, 0.0001], pepita: [0.1]}}
    fgsm_trained:
      seeds: [1]
      settings:
        adversarial_training: true
        training_adversary: {epsilon: 0.1, steps: 1, step: 0.1, random_start: false}
      learning_rates: {all_digits: {bp: [0.1], pepita: [0.05]}}
gradients: [exact, "through:frsf"]
attacks:
  pgd_mse_code: {gradients: [exact], seeds: [1], epsilons: [0.1], images: 60, batch_size: 60, settings: {steps: 5}}
  pgd_mse: {gradients: [exact], seeds: [1], epsilons: [0.1], images: 60, batch_size: 60, settings: {steps: 5}}
  pgd: {rules: [bp], gradients: [exact], epsilons: [0.1], images: 60, batch_size: 60}
  fgsm: {backbones: [natural], epsilons: [0.1], images: 60, batch_size: 60}
  cascade:
    backbones: [natural]
    gradients: [exact]
    epsilons: [0.1]
    images: 60
    batch_size: 60
    settings: {transfer: {steps: 2}, apgd_scaled: {steps: 2}, square: {queries: 2}}
audit: {epsilons: [0.1], attacks: [fgsm, cascade], claim: fgsm}
tables: {pepita_table1: {}, pepita_table4: {}, zero_gradients: {}, audit: {}, published: {published: pepita}}
figures: {pepita_figure2a: {}, pepita_figure2b: {}, audit: {}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose tiny populations have been run."""
    folder = project(tmp_path_factory.mktemp("project"), tiny=TINY)
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


@pytest.mark.slow
def test_everything_that_was_promised_is_there(finished: Path) -> None:
    results = finished / "results/tiny"
    for name in ("pepita_table1", "pepita_table4", "zero_gradients", "audit", "published"):
        assert (results / f"tables/{name}.md").stat().st_size > 50
    for name in ("pepita_figure2a", "pepita_figure2b", "audit"):
        assert (results / f"figures/{name}.png").stat().st_size > 5000
    summary = pd.read_parquet(results / "summary.parquet")
    clean = summary[summary.attack == "clean"].set_index(["backbone", "rule"]).value
    assert set(clean.index) == {(variant, rule) for variant in ("natural", "fgsm_trained") for rule in ("bp", "pepita")}
    assert (clean > 0.8).all(), clean
    assert set(summary[summary.backbone == "fgsm_trained"].n_seeds) == {1}
    robust = summary[(summary.attack == "pgd") & (summary.rule == "bp")].set_index("backbone").value
    assert robust["fgsm_trained"] > robust["natural"]
    records = pd.read_parquet(results / "records.parquet")
    assert {
        "test_accuracy",
        "test_adversarial_accuracy",
        "learning_rate",
        "lowest_rate",
        "highest_rate",
        "chosen_epoch",
        "zero_gradient_share",
    } <= set(records.metric)
    assert set(records[(records.metric == "learning_rate") & (records.rule == "bp")].value) == {0.1}  # not 0.0001
    assert (
        len(
            records[
                (records.metric == "validation_accuracy") & (records.backbone == "natural") & (records.rule == "pepita")
            ]
        )
        == 2 * 12
    )


@pytest.mark.slow
def test_a_member_is_an_ordinary_model_that_computes_what_the_population_did(finished: Path) -> None:
    results = finished / "results/tiny"
    saved = load_population(results / "population/all_digits/natural/pepita.safetensors")
    path = results / "member/all_digits/natural/pepita/seed1.safetensors"
    images, _ = load_prepared(finished / "results/data/digits/prepared.safetensors", "test").batch(torch.arange(20))
    (index,) = [index for index, member in enumerate(saved.content["members"]) if member["seed"] == 1]
    parameters = {name: value[index] for name, value in saved.parameters.items()}
    expected = forward(Network((64, 30, 10)), parameters, images.flatten(1)).logits
    torch.testing.assert_close(load_model(path)(images), expected)
    rule, feedback = load_feedback(path)
    assert (rule, feedback["projection"].shape) == ("pepita", (64, 10))
    sidecar = read_sidecar(path)
    assert sidecar["epoch"] == saved.content["members"][index]["best_epoch"]
    assert sidecar["settings"]["training"]["settings"]["rule"] == {"output_error": "second"}
    record = read_record(results / "attack/all_digits/natural/pepita/pgd_mse/exact/seed1.json")
    assert (record.keys.backbone, record.keys.rule, record.keys.seed) == ("natural", "pepita", 1)
    assert record.content["settings"]["model"] == sidecar["sha256"]


@pytest.mark.slow
def test_results_are_exported_and_a_second_run_does_nothing(finished: Path, tmp_path: Path) -> None:
    done = snakemake(finished, "-n", "tiny")
    assert "Nothing to be done" in done.stdout, done.stdout
    exported = stage("export", "--experiment", "tiny", "--output", tmp_path, folder=finished)
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "tiny/figures/pepita_figure2a.png").exists()


def arguments(data: Path, output: Path, **changes: object) -> list[str]:
    settings = {"hidden": [20], "epochs": 3, "batch_size": 32, "validation_images": 100} | changes
    return ["--data", str(data), "--rule", "pepita", "--settings", json.dumps(settings), "--output", str(output)]


def test_a_rate_at_which_a_member_diverged_is_not_chosen(digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "population.safetensors"
    given = ["--learning-rates", "100", "0.1", "--seeds", "0", "1"]
    done = stage("train_population", *arguments(digits, output, loss="mse"), "--rule", "bp", *given)
    assert done.returncode == 0, done.stderr
    assert "diverged at step" in done.stdout
    saved = load_population(output)
    assert list(scores(saved)) == [0.1]
    assert chosen_rate(saved, "here") == 0.1
    everything = stage(
        "train_population",
        *arguments(digits, output, loss="mse"),
        "--rule",
        "bp",
        "--learning-rates",
        "100",
        "--seeds",
        "0",
    )
    assert everything.returncode == 0
    member = ["--population", output, "--name", "natural", "--seed", "0", "--output", tmp_path / "model.safetensors"]
    refused = stage("select_member", *member)
    assert refused.returncode == 2
    assert "at every learning rate a member diverged, the first at step" in refused.stderr
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"validation_images": 0}, [], "validation_images is 0, but something is to be selected"),
        ({"validation_images": 10**6}, [], "leave none to train on; lower validation_images"),
        ({}, ["--learning-rates", "-1"], "'-1' is not a finite number above 0"),
        ({}, ["--learning-rates", "0.1", "--rule", "pepit"], "unknown update rule 'pepit'"),
        ({"hidden": [10**7, 10**7]}, ["--learning-rates", "0.1"], "are available: 0 fit"),
        ({}, ["--learning-rates", "0.1", "--input", '{"size": 16}'], "populations take small images"),
    ],
)
def test_mistakes_end_in_one_line(
    digits: Path, tmp_path: Path, changes: dict[str, object], more: list[str], message: str
) -> None:
    output = tmp_path / "population.safetensors"
    if "--learning-rates" not in more:
        more = [*more, "--learning-rates", "0.1"]
    done = stage("train_population", *arguments(digits, output, **changes), "--seeds", "0", *more)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not output.exists()


def test_a_damaged_population_is_named(digits: Path, tmp_path: Path) -> None:
    output = tmp_path / "population.safetensors"
    assert (
        stage("train_population", *arguments(digits, output), "--learning-rates", "0.1", "--seeds", "0").returncode == 0
    )
    output.write_bytes(output.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="damaged or not the file"):
        load_population(output)
    for content, message in (({}, "has no seal"), (files.seal({}), "does not describe a population")):
        output.with_suffix(".json").write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            load_population(output)


@pytest.mark.slow
def test_kill_9_in_the_middle_then_the_same_command(digits: Path, tmp_path: Path) -> None:
    given = ["--learning-rates", "0.1", "0.05", "--seeds", "0", "1"]
    whole, killed, checkpoint = (
        tmp_path / "whole.safetensors",
        tmp_path / "killed.safetensors",
        tmp_path / "killed.checkpoint",
    )
    long = {"epochs": 40, "dropout": 0.2, "optimizer": {"momentum": 0.9}}
    assert stage("train_population", *arguments(digits, whole, **long), *given).returncode == 0
    disturbed = [*arguments(digits, killed, **long), *given, "--checkpoint", str(checkpoint)]
    command = as_forks() + shlex.join(["python", str(ROOT / "src/train_population.py"), *disturbed])
    process = subprocess.Popen(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=600)  # the output is closed when the fork, too, has been killed
    assert checkpoint.exists() and not killed.exists()
    resumed = stage("train_population", *disturbed)
    assert resumed.returncode == 0, resumed.stderr
    assert "epoch 1:" not in resumed.stdout and "epoch 40:" in resumed.stdout
    assert killed.read_bytes() == whole.read_bytes()
    assert not checkpoint.exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("population", "variants", "natural", "learning_rates", "all_digits", "bp"),
            [-0.1],
            "learning_rates.all_digits.bp.0 must be above 0, not -0.1",
        ),
        (
            ("population", "variants", "natural", "learning_rates", "all_digits", "bp"),
            [1000],
            "learning_rates.all_digits.bp.0 must be at most 100, not 1000",
        ),
        (
            ("population", "variants", "natural", "learning_rates", "all_digits"),
            {"sal": [0.1]},
            "'sal' is not under `rules`",
        ),
        (
            ("population", "variants", "natural", "learning_rates"),
            {"mnist": {"bp": [0.1]}},
            "'mnist' is not under `population.datasets`",
        ),
        (("population", "variants", "natural", "seeds"), [7], "7 is not under `seeds`"),
        (
            ("population", "variants", "natural", "rule_seeds"),
            {"sal": [0]},
            "'sal' is not a rule that is compared with bp",
        ),
        (
            ("population", "variants", "natural", "rule_seeds"),
            {"bp": [0]},
            "'bp' is not a rule that is compared with bp",
        ),
        (
            ("population", "variants", "natural", "rule_seeds"),
            {"pepita": [7]},
            "rule_seeds.pepita: 7 is not among the seeds of bp",
        ),
        (
            ("population", "variants", "lenet5"),
            {"learning_rates": {"all_digits": {"bp": [0.1]}}},
            "that is a backbone's name",
        ),
        (
            ("population", "settings", "select"),
            "last",
            "select: last chooses nothing, but there are several learning rates",
        ),
        (("population", "settings", "validation_images"), 0, "validation_images is 0, but something is to be selected"),
        (("population", "settings", "rules"), {"sal": {}}, "settings.rules: 'sal' is not under `rules`"),
        (("population", "settings", "rules"), {"bp": {"speed": 1}}, "unknown key 'speed'"),
        (
            ("population", "settings", "datasets"),
            {"mnist": {}},
            "settings.datasets: 'mnist' is not under `population.datasets`",
        ),
        (
            ("population", "settings", "datasets"),
            {"all_digits": {"rules": {"sal": {}}}},
            "settings.rules: 'sal' is not under `rules`",
        ),
        (
            ("population", "variants", "natural", "hyperparameters"),
            [{"file": "target_propagatio", "table": "table1", "row": "mnist", "dataset": "all_digits"}],
            "hyperparameters.file: unknown hyper-parameters 'target_propagatio'; did you mean 'target_propagation'",
        ),
        (("nullspace",), {"gtn": {}}, "nullspace: unknown rule 'gtn'; did you mean 'gnt'"),
        (("nullspace",), {"gnt": {"epochs": 0}}, "nullspace.gnt.epochs must be at least 1, not 0"),
        (("population", "settings", "hidden"), None, "hidden is missing"),
        (("population", "settings", "optimizer", "speed"), 3, "unknown key 'speed'"),
        (("backbones",), ["lenet5"], "take `backbones` away"),
        (("gradients",), ["exact", "feedback"], "update rules train without feedback weights .*; take feedback away"),
        (("rules",), ["bp", "frsf"], "unknown update rule 'frsf'"),
        (("population",), None, "backbones is missing"),
    ],
)
def test_mistakes_in_an_experiment_are_explained(
    path: tuple[str, ...], value: object, message: str, tmp_path: Path
) -> None:
    keys = yaml.safe_load(TINY)
    place = keys
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(tmp_path, "tiny")
    assert "\n" not in str(caught.value)
