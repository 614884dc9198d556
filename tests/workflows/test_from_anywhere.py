"""The workflow in another folder than its clone: as a module of another workflow, and with `--directory`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT, project, snakemake

TINY = """
description: as few jobs as there can be
datasets: {digits: {source: digits, classes: [0, 1]}}
backbones: [small_cnn]
rules: [bp]
seeds: [0]
threads: 1
pretrain: {start: random}
finetune: {datasets: [digits], settings: {epochs: 1, batch_size: 32, learning_rate: 2.0e-3, head_learning_rate: 2.0e-2}}
gradients: [exact]
attacks: {fgsm: {epsilons: [0.1], images: 20, batch_size: 20}}
tables: {published: {}}
figures: {figure2: {}}
"""

OUTER = """
module creditflow:
    snakefile:
        "{clone}/Snakefile"
    config:
        {{"default_experiment": "tiny"}}


use rule * from creditflow


onstart:
    print(f"the outer workflow begins with {{shell._process_prefix.count('forkserver')}} prefix that forks")


rule mine:
    input:
        "results/tiny/summary.parquet",
    output:
        "mine.parquet",
    shell:
        "cp {{input}} {{output}}"
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("clone"), own_server=True, of_the_clone=TINY)


@pytest.fixture(scope="module")
def elsewhere(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workflow that uses ours as a module, and an experiment of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "Snakefile").write_text(OUTER.format(clone=clone), encoding="utf-8")
    (folder / "config/experiments").mkdir(parents=True)
    (folder / "config/experiments/tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "config/config.yaml").write_text(
        (ROOT / "config/config.yaml")
        .read_text(encoding="utf-8")
        .replace("default_experiment: quick", "default_experiment: tiny"),
        encoding="utf-8",
    )
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with another version of creditflow, which nothing must import."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "creditflow").mkdir()
    (folder / "creditflow/__init__.py").write_text(
        "raise RuntimeError('the installed package was imported')\n", encoding="utf-8"
    )
    return folder


def fresh_snakemake(folder: Path, installed: Path, *arguments: str) -> str:
    """Runs Snakemake in a process of its own, which finds the other version of creditflow first."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--show-failed-logs", *arguments]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_module_plans_the_experiments_of_the_folder(clone: Path, elsewhere: Path) -> None:
    said = snakemake(elsewhere, "-n", "--", "mine").stdout
    assert "\nrule mine:\n" in said and "\nrule finetune:\n" in said
    assert f"input: {clone}/src/finetune.py, results/data/digits/prepared.safetensors" in said
    listed = snakemake(elsewhere, "--list").stdout
    assert "\nmine" in listed and "quick" not in listed


def test_without_experiments_of_its_own_a_folder_has_those_of_the_clone(
    clone: Path, tmp_path: Path, installed: Path
) -> None:
    said = fresh_snakemake(
        clone, installed, "-s", str(clone / "Snakefile"), "--directory", str(tmp_path), "-n", "--quiet", "host"
    )
    assert f"input: {clone}/src/fetch.py" in said and "results/quick/tables/overview.csv" in said
    assert not (tmp_path / "results").exists()


@pytest.mark.slow
def test_a_module_makes_what_the_workflow_itself_takes_for_made(clone: Path, elsewhere: Path, installed: Path) -> None:
    said = fresh_snakemake(elsewhere, installed, "--", "mine", "tiny")
    assert "the outer workflow begins with 1 prefix that forks\n" in said
    assert (elsewhere / "mine.parquet").read_bytes() == (elsewhere / "results/tiny/summary.parquet").read_bytes()
    for name in ("tables/published.html", "figures/figure2.pdf", "logs/collect.log"):
        assert (elsewhere / "results/tiny" / name).exists()
    again = ("-s", str(clone / "Snakefile"), "--directory", str(elsewhere), "-n", "--", "tiny")
    assert "Nothing to be done" in snakemake(clone, *again).stdout
