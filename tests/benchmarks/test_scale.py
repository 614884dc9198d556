"""`benchmarks/scale.py`: its experiment has as many jobs as asked for, and the clock of a dry-run counts rightly."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from tests.helpers import ROOT

from creditflow.workflow.loading import load_experiment


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("scale")


@pytest.fixture(scope="module")
def dry_run() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("_dry_run")


def test_a_seed_has_as_many_jobs_as_it_says(scale: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(scale.experiment(3 * scale.PER_SEED)), encoding="utf-8")
    made = load_experiment(tmp_path, "scale")
    chains = list(made.chains())
    attacks = [each for d, network, rule, seed in chains for each in made.conditions(d, rule, seed, network)]
    pretrained = len(made.keys["seeds"])
    assert pretrained == 3
    assert pretrained + 2 * len(chains) + len(attacks) == 3 * scale.PER_SEED


def test_time_counts_for_whose_code_runs(dry_run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = 0.0
    monkeypatch.setattr(time, "process_time", lambda: now)

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    clock = dry_run.Clock()
    register = dry_run.of_snakemake(clock, lambda: work(8))
    ask = clock.timed(lambda: work(2), "asking")

    def read() -> None:
        work(1)
        register()
        work(4)

    work(16)  # Snakemake's own start
    clock.timed(read, "reading")()
    ask()
    register()
    clock.write(tmp_path / "ours.json")
    assert json.loads((tmp_path / "ours.json").read_text(encoding="utf-8")) == {
        "reading": 5,
        "asking": 2,
        "listening": 0,
    }
    assert clock.seconds[None] == 32


def test_functions_of_snakemake_do_not_count(dry_run: ModuleType) -> None:
    clock = dry_run.Clock()
    theirs = sys.modules["snakemake.utils"].min_version
    assert dry_run.time_ours(clock, theirs) is theirs
    assert dry_run.time_ours(clock, lambda wildcards: 1)("x") == 1
    assert set(clock.seconds) == {None, "asking"}
