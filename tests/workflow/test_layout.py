"""Where everything lies: rules and library agree, and the paths are the ones that they always were."""

import json
import re
from pathlib import Path

import pytest

from creditflow.workflow import layout, outputs
from creditflow.workflow.layout import PLACES, RESERVED
from creditflow.workflow.loading import load_experiment, load_experiments
from creditflow.workflow.outputs import record_paths
from helpers import ROOT, project

RULES = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "rules").glob("*.smk")))


def test_a_place_belongs_to_each_rule_and_to_a_script_of_its_name() -> None:
    named = set(re.findall(r"^rule (\w+):", RULES, re.MULTILINE))
    assert {place.rule for place in PLACES} == named - {"prefetch"}
    assert all((ROOT / "src" / f"{place.rule}.py").exists() for place in PLACES)


def test_no_rule_writes_down_a_path_of_its_own() -> None:
    assert "seed{seed}" not in RULES and "results/" not in RULES
    for rule, body in re.findall(r"^rule (\w+):(.*?)(?=^rule |\Z)", RULES, re.MULTILINE | re.DOTALL):
        if rule != "prefetch":
            assert f'script=layout.script("{rule}")' in body
            assert f"layout.{rule.upper()}.log," in body and f"layout.{rule.upper()}.benchmark" in body


def test_no_experiment_is_called_like_a_rule_or_a_folder_of_results() -> None:
    rules = set(re.findall(r"^rule (\w+):", RULES, re.MULTILINE))
    folders = {"data", "population", "member", "model", "nullspace", "codes", "tables", "figures", "why"}
    assert {*rules, *folders, "all"} == RESERVED


def test_patterns_and_paths_agree() -> None:
    wildcards = {
        name: name.upper() for name in ("experiment", "dataset", "backbone", "rule", "attack", "gradient", "seed")
    }
    assert layout.ATTACK.file(".json") == (
        "results/{experiment}/attack/{dataset}/{backbone}/{rule}/{attack}/{gradient}/seed{seed}.json"
    )
    pattern = layout.ATTACK.file(".json").format(**wildcards)
    assert str(layout.ATTACK.path(Path("results"), ".json", **wildcards)) == pattern
    assert layout.FINETUNE.checkpoint == (
        "results/{experiment}/checkpoints/finetune/{dataset}/{backbone}/{rule}/seed{seed}.checkpoint"
    )
    assert layout.ENCODE.log == "results/{experiment}/logs/encode/{dataset}/{backbone}/{rule}/seed{seed}.log"
    assert layout.PREPARE.benchmark == "results/data/benchmarks/prepare/{source}.tsv"
    with pytest.raises(KeyError, match="seed"):
        layout.FINETUNE.path(Path("results"), experiment="quick", dataset="d", backbone="b", rule="bp")


def test_every_file_of_an_experiment_has_a_place_of_its_own() -> None:
    for experiment in load_experiments(ROOT / "config/experiments").values():
        files = outputs.all_files(experiment, Path("results"))
        assert len(set(files)) == len(files)
        assert set(outputs.record_paths(experiment, Path("results"))) <= set(files)
        assert set(outputs.wanted(experiment, Path("results"))) <= set(files)


def test_the_clones_files_are_relative_only_in_the_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert layout.script("attack") == "src/attack.py"
    assert layout.here_or_in_clone("config/experiments") == Path("config/experiments")
    (tmp_path / "link").symlink_to(ROOT)
    monkeypatch.chdir(tmp_path / "link")
    assert layout.script("attack") == "src/attack.py"
    monkeypatch.chdir(tmp_path)
    assert layout.script("attack") == str(ROOT / "src/attack.py")
    assert layout.here_or_in_clone("config/experiments") == ROOT / "config/experiments"
    (tmp_path / "config/experiments").mkdir(parents=True)
    assert layout.here_or_in_clone("config/experiments") == Path("config/experiments")


def test_a_fresh_clone_says_what_appears_under_results(tmp_path: Path) -> None:
    page = (ROOT / "results/README.md").read_text(encoding="utf-8")
    for place in PLACES:
        folder = place.stem.split("/")[0] if "/" in place.stem else f"{place.stem}.parquet"
        assert folder.startswith("{") or folder in page, place
    assert not (project(tmp_path) / "results").exists()


@pytest.mark.parametrize("name", ["quick", "retrieval", "target_propagation"])
def test_the_keys_of_a_record_follow_from_its_path(name: str) -> None:
    experiment = load_experiment(ROOT / "config/experiments", name)
    keys = [layout.record_keys(path) for path in record_paths(experiment, Path("/some/where/results"))]
    assert keys and all(found is not None and found["experiment"] == name for found in keys)
    assert len({json.dumps(found, sort_keys=True) for found in keys}) == len(keys)
    assert {"clean"} < {found["attack"] for found in keys if found is not None}


def test_a_path_elsewhere_tells_no_keys() -> None:
    for path in ("seed0.json", "evaluate/d/b/r/seed0.json", "results/quick/tables/table1.json"):
        assert layout.record_keys(Path(path)) is None
    expected = {"experiment": "e", "dataset": "d", "backbone": "b", "rule": "r", "seed": 3}
    of_attack = {"attack": "pgd", "gradient": "exact", "task": "classification"}
    assert layout.record_keys(Path("results/e/attack/d/b/r/pgd/exact/seed3.json")) == expected | of_attack
