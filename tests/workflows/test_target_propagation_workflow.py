"""The target-propagation experiment on tiny files in the true formats: MNIST, Frozen-MNIST, CIFAR-10, and the CNN."""

import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from creditflow.compute import randomness
from creditflow.data.prepared import load_prepared
from creditflow.models.storage import load_model
from creditflow.populations.network import initial_parameters
from creditflow.populations.storage import load_population
from creditflow.records.record import read_record
from formats import cifar10, mnist
from helpers import project, snakemake, stage

pytestmark = pytest.mark.slow

#: Of layers with a thousand units, most of the time goes into drawing and storing millions of weights.
NARROW = [48, 40, 32]

TINY = {
    "extends": "target_propagation",
    "description": "the small end of the target-propagation paper",
    "datasets": {"fashion_mnist": None},
    "rules": ["bp", "ddtp_linear"],
    "seeds": [0],
    "population": {
        "datasets": ["mnist", "cifar10"],
        "settings": {"epochs": 2, "batch_size": 20, "validation_images": 4, "angle_images": 4, "dampings": [0.1]},
        "variants": {
            "mlp_256x5": None,
            "mlp_256x5_all_images": None,
            "frozen_mlp_256x5": {
                "hyperparameters": [
                    {"file": "target_propagation", "table": "table1", "row": "frozen_mnist", "dataset": "mnist"}
                ]
            },
            "frozen_mlp_256x5_all_images": None,
            "mlp_1024x3": {"settings": {"hidden": NARROW}},
            "mlp_1024x3_all_images": {"settings": {"hidden": NARROW}},
            "cnn": {"settings": {"hidden": [32], "rules": {"dfa_targets": None}}},
        },
    },
    "nullspace": {
        "bp": None,
        "gnt": None,
        "dtp": None,
        "ddtp_linear": {"feedback_epochs": 1, "epochs": 1, "examples": 20, "every": 5},
    },
    "attacks": {
        "pgd": {"backbones": ["cnn"], "images": 4, "batch_size": 4, "epsilons": [0.05], "settings": {"steps": 2}},
        "apgd_ce": None,
        "apgd_dlr": None,
        "square": None,
        "cascade": None,
    },
    "audit": None,
    "tables": {
        "audit": None,
        "audit_guards": None,
        "compare": None,
        "published": None,
        "population_costs": {"dataset": "cifar10", "variants": {"all": "cnn"}},
        "table1": None,
    },
    "figures": {"audit": None, "target_propagation_figure4": {"dataset": "mnist", "variant": "frozen_mlp_256x5"}},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the tiny experiment has been run."""
    raw = tmp_path_factory.mktemp("raw")
    folder = project(tmp_path_factory.mktemp("project"), tiny=yaml.safe_dump(TINY))
    for name, (files, _) in (("mnist", mnist()), ("cifar10", cifar10())):
        reader = folder / f"src/creditflow/data/datasets/{name}.py"
        text = reader.read_text(encoding="utf-8")
        for file, content in files.items():
            (raw / file).write_bytes(content)
            place = re.escape(f'"{file}"') if name == "mnist" else "_ARCHIVE"
            text = re.sub(rf"({place}: \"md5:)[0-9a-f]{{32}}", rf"\g<1>{hashlib.md5(content).hexdigest()}", text)
        reader.write_text(text, encoding="utf-8")
    configuration = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    configuration["data"]["search_paths"] = [str(raw)]
    (folder / "config/config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    done = snakemake(folder, "tiny")
    assert done.returncode == 0, done.stdout
    return folder


def test_every_path_leaves_its_table_and_figure(finished: Path) -> None:
    results = finished / "results/tiny"
    first = pd.read_csv(results / "tables/target_propagation_table1.csv")
    second = pd.read_csv(results / "tables/target_propagation_table2.csv")
    assert set(first.backbone) == {"frozen_mlp_256x5", "mlp_1024x3", "cnn"} and set(second.backbone) == {
        "mlp_1024x3_all_images"
    }
    assert {"bp", "ddtp_linear"} == set(first.rule) == set(second.rule)
    for name in ("target_propagation_figure2", "target_propagation_figure4"):
        assert (results / f"figures/{name}.png").stat().st_size > 5000
        assert {"bp", "dtp", "gnt", "ddtp_linear"} >= set(pd.read_csv(results / f"tables/{name}.csv").rule)


def test_the_results_can_be_exported_though_populations_are_older_than_records(finished: Path) -> None:
    done = stage("export", "--experiment", "tiny", "--output", finished / "kept", folder=finished)
    assert done.returncode == 0, done.stderr
    costs = pd.read_csv(finished / "kept/tiny/tables/population_costs.csv")
    assert set(costs.rule) == {"bp", "ddtp_linear"} and (costs.over_bp >= 1).all()


def test_on_frozen_mnist_the_first_layer_and_all_feedback_learn(finished: Path) -> None:
    saved = load_population(finished / "results/tiny/population/mnist/frozen_mlp_256x5/ddtp_linear.safetensors")
    start = initial_parameters(saved.network, "xavier_normal", randomness.generator("population", "weights", 0))
    moved = {
        name
        for name, value in saved.parameters.items()
        if not torch.allclose(value[0].double(), start[name], atol=1e-6)
    }
    assert moved <= {"weight1", "bias1"} and "weight1" in moved
    assert saved.training.feedback_epochs == 10


@pytest.mark.parametrize(("dataset", "variant"), [("mnist", "frozen_mlp_256x5"), ("cifar10", "cnn")])
def test_models_see_pixels_as_populations_did(finished: Path, dataset: str, variant: str) -> None:
    results = finished / "results/tiny"
    model = load_model(results / f"member/{dataset}/{variant}/bp/seed0.safetensors")
    spec = model.spec
    mean, deviation = {"mnist": (0.1307, 0.3081), "cifar10": (0.5, 0.5)}[dataset]
    assert set(spec.mean) == {mean} and set(spec.std) == {deviation}
    data = load_prepared(finished / f"results/data/{dataset}/prepared.safetensors", "test")
    images, labels = data.batch(torch.arange(len(data.labels)))
    logits = model(images)
    record = read_record(results / f"evaluate/{dataset}/{variant}/bp/seed0.json")
    assert record.outcomes["correct"][0].tolist() == (logits.argmax(1) == labels).tolist()
    by_hand = model.head(model.backbone((images - mean) / deviation))
    torch.testing.assert_close(logits, by_hand, rtol=1e-5, atol=1e-5)
    if variant == "cnn":
        kinds = [type(layer).__name__ for layer in model.backbone]
        assert kinds[:3] == ["Conv2d", "Tanh", "MaxPool2d"] and spec.options["convolutions"] == [32, 64]
