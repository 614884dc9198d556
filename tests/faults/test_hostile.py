"""Names and values that a shell would obey: they stay names and values."""

import gzip
from pathlib import Path
from typing import Any

import pytest
import yaml
from sklearn.datasets import load_digits

from creditflow.core.errors import UserError
from creditflow.workflow.loading import Experiments, load_experiment, load_experiments
from creditflow.workflow.requests import check_workflow
from faults.conftest import CELLS
from helpers import ROOT, project, snakemake

HOSTILE = (
    "$(touch obeyed)",
    "`touch obeyed`",
    "a;touch obeyed",
    "a b",
    "a'b",
    'a"b',
    "a&touch obeyed",
    "../up",
    "a\n",
    "-x",
    "{a}",
    "*",
)

#: Places of an experiment that become part of a command or a path.
PLACES = (
    "datasets.low.source",
    "backbones.0",
    "rules.1",
    "seeds.0",
    "threads",
    "pretrain.dataset",
    "finetune.datasets.0",
    "gradients.0",
    "audit.attacks.0",
    "audit.claim",
    "attacks.fgsm.images",
    "attacks.fgsm.batch_size",
    "attacks.fgsm.epsilons.1",
    "datasets.low.classes.0",
)
KEYS = ("datasets", "attacks", "tables", "figures")


def put(keys: Any, place: str, value: Any) -> None:
    *parents, last = place.split(".")
    for part in parents:
        keys = keys[int(part)] if isinstance(keys, list) else keys[part]
    keys[int(last) if isinstance(keys, list) else last] = value


@pytest.mark.parametrize("word", HOSTILE)
def test_what_becomes_part_of_a_command_is_checked(word: str, tmp_path: Path) -> None:
    def load(name: str, keys: Any) -> None:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
        load_experiment(tmp_path, name)

    load("mine", yaml.safe_load(CELLS))
    for place in PLACES:
        keys = yaml.safe_load(CELLS)
        put(keys, place, word)
        with pytest.raises(UserError, match=r"mine\.yaml"):
            load("mine", keys)
    for place in KEYS:
        keys = yaml.safe_load(CELLS)
        keys[place][word] = next(iter(keys[place].values()))
        with pytest.raises(UserError, match=r"mine\.yaml"):
            load("mine", keys)
    (tmp_path / "mine.yaml").unlink()
    if "/" not in word:
        with pytest.raises(UserError, match="cannot be called"):
            load(word, yaml.safe_load(CELLS))


@pytest.fixture(scope="module")
def shipped() -> Experiments:
    return load_experiments(ROOT / "config/experiments")


@pytest.mark.parametrize("word", HOSTILE)
@pytest.mark.parametrize("place", ["device", "default_experiment", "container.flavour"])
def test_the_workflows_own_configuration_is_checked(place: str, word: str, shipped: Experiments) -> None:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    put(config, place, word)
    with pytest.raises(UserError, match="configuration"):
        check_workflow(config, shipped)


@pytest.mark.slow
def test_a_workflow_with_hostile_folders_and_texts(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "$(touch obeyed)" & `touch obeyed`; folder'
    folder.mkdir()
    text = CELLS.replace("epochs: 4", "epochs: 1")
    text = text.replace("fine-tuning on the digits", "\"$(touch obeyed); `touch obeyed` 'a' {b} <c>\"")
    project(folder, own_server=True, cells=text)
    place = folder / "data of $(touch obeyed) 'mine'"
    place.mkdir()
    digits = load_digits()
    rows = [
        ",".join(f"{value:g}" for value in [*image, label])
        for image, label in zip(digits.data, digits.target, strict=True)
    ]
    (place / "digits.csv.gz").write_bytes(gzip.compress(("\n".join(rows) + "\n").encode()))
    config = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    config["data"]["search_paths"] = [str(place), "$(touch obeyed)"]
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = snakemake(folder, "cells")
    assert done.returncode == 0, done.stdout
    assert (folder / "results/cells/figures/figure2.pdf").stat().st_size > 5000
    origin = (folder / "results/data/digits/raw/origin.json").read_text(encoding="utf-8")
    assert "$(touch obeyed) 'mine'" in origin
    spoilt = text.replace(
        "images: 40, batch_size: 20}", 'images: 40, batch_size: 20, settings: {norm: "$(touch obeyed)\'"}}'
    )
    (folder / "config/experiments/cells.yaml").write_text(spoilt, encoding="utf-8")
    done = snakemake(folder, "cells")
    assert done.returncode != 0
    assert "error: config/experiments/cells.yaml: attacks.fgsm.settings: unknown key 'norm'" in done.stdout
    assert not [path for path in tmp_path.rglob("*") if path.name == "obeyed"]
