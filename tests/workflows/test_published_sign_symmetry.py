"""The paper's experiment: it is listed whole, and its smallest cells run end to end at full size on stand-in files."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from creditflow.compute.torchvision_import import torchvision
from creditflow.core import files
from creditflow.records.record import read_record
from formats import python2_pickle
from helpers import project, snakemake

pytestmark = pytest.mark.slow

#: Images of each split; CIFAR-10's training images lie in the first of five files. At 224 pixels each costs seconds.
N_SPLIT = 2

CELLS = {
    "extends": "sign_symmetry",
    "description": "two cells of the paper's matrix on stand-in files",
    "backbones": ["resnet18"],
    "rules": ["bp", "frsf"],
    "seeds": [0],
    "threads": 1,
    "finetune": {
        "datasets": ["cifar10", "coco"],
        "settings": {"epochs": 2, "batch_size": 2, "angle_images": 1},
        "overrides": {"coco": {"epochs": 1}},
    },
    "tables": {"table4": None},
    "figures": {"figure4": None, "figure5": None},
    "attacks": {
        "fgsm": {"datasets": ["cifar10", "coco"], "images": 1, "batch_size": 1},
        "pgd": {
            "datasets": ["cifar10"],
            "rules": ["frsf"],
            "gradients": ["feedback"],
            "images": 2,
            "batch_size": 2,
            "epsilons": [0.01],
            "settings": {"steps": 2},
        },
        "boundary": {"datasets": ["coco"], "rules": ["frsf"], "images": 1, "batch_size": 1, "settings": {"steps": 3}},
        "hopskipjump": None,
    },
}


def cifar(folder: Path) -> str:
    """Writes an archive like CIFAR-10's, with a few images; returns its MD5."""
    rng = np.random.default_rng(0)
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
            n = N_SPLIT if name in ("data_batch_1", "test_batch") else 0
            batch = {
                b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
                b"labels": [index % 10 for index in range(n)],
            }
            content = python2_pickle(batch)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


def coco(folder: Path, categories: tuple[str, ...]) -> None:
    """Writes a folder like MS-COCO's, with a few photographs of noise."""
    rng = np.random.default_rng(1)
    (folder / "annotations").mkdir(parents=True)
    kinds = [{"id": 2 * index + 1, "name": name} for index, name in enumerate(categories)]
    for part in ("train2014", "val2014"):
        (folder / part).mkdir()
        images, annotations = [], []
        for number in range(N_SPLIT):
            name = f"COCO_{part}_{number:012d}.jpg"
            Image.fromarray(rng.integers(0, 256, (60 + number, 80, 3), dtype=np.uint8)).save(folder / part / name)
            images.append({"id": number, "file_name": name})
            for index in {number % 80, (7 * number) % 80}:
                annotations.append({"image_id": number, "category_id": 2 * index + 1, "segmentation": []})
        content = {"images": images, "annotations": annotations, "categories": kinds}
        (folder / f"annotations/instances_{part}.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the two cells have been run."""
    raw = tmp_path_factory.mktemp("raw")
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), raw / "mine.pth")
    local = {"resnet18": {"path": str(raw / "mine.pth"), "sha256": files.file_sha256(raw / "mine.pth")[:12]}}
    folder = project(tmp_path_factory.mktemp("project"), cells=yaml.safe_dump(CELLS | {"pretrain": {"files": local}}))
    dataset = folder / "src/creditflow/data/datasets/cifar10.py"
    dataset.write_text(
        re.sub(r"md5:[0-9a-f]{32}", f"md5:{cifar(raw)}", dataset.read_text(encoding="utf-8")), encoding="utf-8"
    )
    from creditflow.data.datasets.coco import DATASET

    coco(raw / "coco", tuple(DATASET.class_names))
    configuration = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    configuration["data"]["search_paths"] = [str(raw)]
    (folder / "config/config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    done = snakemake(folder, "cells")
    assert done.returncode == 0, done.stdout
    return folder


def test_the_whole_experiment_is_listed(tmp_path: Path) -> None:
    done = snakemake(project(tmp_path), "-n", "--quiet", "host", "--", "sign_symmetry")
    assert done.returncode == 0, done.stdout
    counts = {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE)}
    n_models = 3 * 4 * 4 * 3  # backbones, datasets, rules, seeds
    assert counts["finetune"] == counts["evaluate"] == n_models
    # Three datasets are attacked: FGSM and PGD through two gradients (one for BP) at three seeds, two black-box attacks
    # at one.
    assert counts["attack"] == 3 * 3 * (2 * (1 + 3 * 2) * 3 + 4 * 2)
    assert counts["fetch"] == counts["prepare"] == 4
    assert counts["fetch_weights"] == counts["import_weights"] == 3


def test_networks_saw_224_pixels_and_started_from_the_given_weights(cells: Path) -> None:
    sidecar = json.loads((cells / "results/cells/finetune/coco/resnet18/frsf/seed0.json").read_text(encoding="utf-8"))
    assert sidecar["spec"]["image_shape"] == [3, 224, 224]
    assert sidecar["spec"]["n_classes"] == 80
    assert sidecar["spec"]["mean"] == [0.485, 0.456, 0.406]
    assert [row["epoch"] for row in sidecar["history"]] == [1]
    assert sidecar["settings"]["settings"]["learning_rate"] == 1e-5
    imported = json.loads((cells / "results/cells/pretrain/resnet18/imported.json").read_text(encoding="utf-8"))
    assert sidecar["settings"]["pretrained"] == imported["sha256"]["weights"]


def test_records_say_what_was_measured(cells: Path) -> None:
    frame = pd.read_parquet(cells / "results/cells/records.parquet")
    assert set(frame.dataset) == {"cifar10", "coco"}
    assert set(frame.attack[frame.dataset == "coco"]) == {"clean", "fgsm", "boundary"}
    angles = frame[frame.metric == "update_angle"]
    assert set(zip(angles.dataset, angles.rule, angles.epoch, strict=True)) == {
        (dataset, rule, epoch)
        for dataset, n in (("cifar10", 2), ("coco", 1))
        for rule in ("bp", "frsf")
        for epoch in range(1, n + 1)
    }
    assert angles.value[angles.rule == "bp"].max() < 0.1
    assert angles.value[angles.rule == "frsf"].min() > 1
    record = read_record(cells / "results/cells/attack/coco/resnet18/frsf/fgsm/feedback/seed0.json")
    assert record.outcomes["correct"].shape == (7, 1)


def test_tables_and_figures_of_several_datasets_are_made(cells: Path) -> None:
    for name in ("table1", "table3", "figure2", "compare"):
        assert (cells / f"results/cells/tables/{name}.md").stat().st_size > 0
    for name in ("figure1", "figure2"):
        assert (cells / f"results/cells/figures/{name}.pdf").stat().st_size > 0


def test_a_dataset_that_is_missing_says_where_to_put_it(tmp_path: Path) -> None:
    folder = project(tmp_path)
    done = snakemake(folder, "results/data/imagenet/raw")
    assert done.returncode != 0
    assert re.search(
        r"^error: fetch .*: imagenet: no complete folder of it.*data\.search_paths", done.stdout, re.MULTILINE
    )


def test_weights_of_another_architecture_stop_the_workflow_in_one_line(cells: Path, tmp_path: Path) -> None:
    experiment = yaml.safe_load((cells / "config/experiments/cells.yaml").read_text(encoding="utf-8"))
    local = experiment["pretrain"]["files"].pop("resnet18")
    folder = project(
        tmp_path,
        wrong=yaml.safe_dump(experiment | {"backbones": ["alexnet"], "pretrain": {"files": {"alexnet": local}}}),
    )
    done = snakemake(folder, "results/wrong/pretrain/alexnet/imported.safetensors")
    assert done.returncode != 0
    assert re.search(r"^error: import_weights .*: the weights are not those of alexnet", done.stdout, re.MULTILINE)
