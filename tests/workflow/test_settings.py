"""Settings of plugins are checked when experiments are loaded; what is generated from their models is up to date."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # Snakemake brings it

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel
from creditflow.core.settings_docs import as_text, describe, meanings
from creditflow.workflow.experiment_model import ExperimentKeys
from creditflow.workflow.generated import generated_files, schema
from creditflow.workflow.loading import load_experiment, load_experiments
from creditflow.workflow.workflow_model import WorkflowKeys
from helpers import ROOT

EXPERIMENTS = ROOT / "config/experiments"
QUICK: dict[str, Any] = yaml.safe_load((EXPERIMENTS / "quick.yaml").read_text(encoding="utf-8"))
RETRIEVAL: dict[str, Any] = yaml.safe_load((EXPERIMENTS / "retrieval_fashion.yaml").read_text(encoding="utf-8"))
KINDS = ("attack", "hash_attack", "update_rule", "table", "figure")
PLUGINS = [(kind, name) for kind in KINDS for name in plugins.names(kind)]


def population(rule: str, settings: dict[str, Any]) -> dict[str, Any]:
    """An experiment that trains one small population with a rule of these settings."""
    return {
        "description": "one rule",
        "datasets": {"digits": {"source": "digits"}},
        "rules": [rule],
        "seeds": [0],
        "threads": 1,
        "gradients": ["exact"],
        "population": {
            "datasets": ["digits"],
            "settings": {"hidden": [8], "epochs": 1, "batch_size": 8, "rules": {rule: {"rule": settings}}},
            "variants": {"tiny": {"learning_rates": {"digits": {rule: [0.1]}}}},
        },
        "attacks": {},
        "tables": {},
        "figures": {},
    }


def with_settings(kind: str, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """An experiment in which a plugin has these settings."""
    if kind == "update_rule":
        return population(name, settings)
    if kind in ("table", "figure"):
        return QUICK | {f"{kind}s": QUICK[f"{kind}s"] | {name: settings}}
    whole = QUICK if kind == "attack" else RETRIEVAL
    attack = whole["attacks"].get(name, {"epsilons": [0.1], "images": 8, "batch_size": 8})
    return whole | {"attacks": whole["attacks"] | {name: attack | {"settings": settings}}}


def mistake(folder: Path, keys: dict[str, Any]) -> str:
    (folder / "mine.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_experiment(folder, "mine")
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{folder}/mine.yaml: "), text
    return text


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_an_unknown_setting_of_any_plugin_is_named_before_any_job(kind: str, name: str, tmp_path: Path) -> None:
    text = mistake(tmp_path, with_settings(kind, name, {"no_such_key": 1}))
    place = {"attack": f"attacks.{name}.settings", "hash_attack": f"attacks.{name}.settings"}
    place |= {
        "update_rule": f"settings of {name} on digits: rule",
        "table": f"tables.{name}",
        "figure": f"figures.{name}",
    }
    assert f"{place[kind]}: unknown key 'no_such_key'" in text


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_number_of_any_plugin_has_a_least_and_a_greatest_value(kind: str, name: str) -> None:
    for row in describe(plugins.settings_class(kind, name)):
        if row.kind.startswith(("integer", "number")):
            assert " to " in row.kind or ("a" in row.kind and ("below" in row.kind or "at most" in row.kind)), row


@pytest.mark.parametrize(
    ("kind", "name", "settings", "message"),
    [
        ("attack", "pgd", {"stepz": 3}, "attacks.pgd.settings: unknown key 'stepz'; did you mean 'steps'?"),
        ("attack", "pgd", {"steps": 0}, "attacks.pgd.settings: steps must be at least 1, not 0"),
        ("attack", "pgd", {"steps": 10**9}, "attacks.pgd.settings: steps must be at most 1000000, not 1000000000"),
        ("attack", "pgd", {"steps": "many"}, "attacks.pgd.settings: steps must be an integer, not 'many'"),
        (
            "table",
            "overview",
            {"epsilon_lnf": 0.1},
            "tables.overview: unknown key 'epsilon_lnf'; did you mean 'epsilon_linf'?",
        ),
        ("table", "table3", {}, "tables.table3: epsilon is missing"),
    ],
)
def test_a_mistake_in_settings_is_one_line(
    kind: str, name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert mistake(tmp_path, with_settings(kind, name, settings)) == f"{tmp_path}/mine.yaml: {message}"


@pytest.mark.parametrize("figure", ["gradient_matrix", "transfer_matrix", "gallery", "figure1"])
def test_a_figure_that_shows_one_network_says_before_any_job_that_there_are_two(figure: str, tmp_path: Path) -> None:
    settings = {"epsilon": 0.1} if figure.endswith("matrix") else {}
    keys = QUICK | {"tables": {}, "backbones": ["lenet5", "small_cnn"], "figures": {figure: settings}}
    choice = "choose one of lenet5, small_cnn"
    assert mistake(tmp_path, keys) == f"{tmp_path}/mine.yaml: figures.{figure}: backbone is missing; {choice}"
    keys["figures"] = {figure: settings | {"backbone": "lenet5"}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    load_experiment(tmp_path, "mine")


def test_update_rules_are_checked_wherever_their_settings_come_from(tmp_path: Path) -> None:
    keys = population("pepita", {})
    for place in (keys["population"]["settings"], keys["population"]["variants"]["tiny"].setdefault("settings", {})):
        for part in (place, place.setdefault("datasets", {}).setdefault("digits", {})):
            part.setdefault("rules", {})["pepita"] = {"rule": {"no_such_key": 1}}
            assert "rule: unknown key 'no_such_key'" in mistake(tmp_path, keys)
            part["rules"]["pepita"] = {}
    keys["nullspace"] = {"gnt": {"rule": {"no_such_key": 1}}}
    assert "nullspace.gnt.rule: unknown key 'no_such_key'" in mistake(tmp_path, keys)


def test_rules_about_several_keys_hold_for_what_is_merged(tmp_path: Path) -> None:
    keys = population("pepita", {})
    keys["population"]["settings"]["validation_images"] = 0
    assert "settings of pepita on digits: validation_images is 0, but something is to be selected" in mistake(
        tmp_path, keys
    )
    keys["population"]["variants"]["tiny"]["settings"] = {"select": "last"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    load_experiment(tmp_path, "mine")


def test_a_learning_rate_with_an_exponent_is_a_number(tmp_path: Path) -> None:
    text = re.sub(
        r"learning_rate: [0-9.e-]+", "learning_rate: 1e-4", (EXPERIMENTS / "quick.yaml").read_text(encoding="utf-8")
    )
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert load_experiment(tmp_path, "mine").keys["finetune"]["settings"]["learning_rate"] == 1e-4


def test_generated_files_are_up_to_date() -> None:
    for path, wanted in generated_files(ROOT).items():
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        difference = difflib.unified_diff(
            there.splitlines(), wanted.splitlines(), str(path), "make generate", lineterm=""
        )
        lines = list(difference)
        assert not lines, "\n".join(["run `make generate`:", *lines[:60]])


def test_a_field_that_is_added_changes_what_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(SettingsModel):
        """Of an attack."""

        steps: int = 3
        """Number of steps."""

    monkeypatch.setattr(plugins, "settings_class", lambda kind, name: Settings)
    changed = [
        path.name for path, wanted in generated_files(ROOT).items() if path.read_text(encoding="utf-8") != wanted
    ]
    assert changed == ["schema.yaml", "configuration.md"]


def test_every_setting_says_what_it_means() -> None:
    models = [ExperimentKeys, WorkflowKeys, *(plugins.settings_class(kind, name) for kind, name in PLUGINS)]
    assert [row.key for model in models for row in describe(model) if not row.meaning.endswith((".", ")"))] == []


def test_help_on_settings_has_type_range_default_and_meaning() -> None:
    lines = as_text(plugins.settings_class("attack", "pgd")).splitlines()
    assert lines[0].startswith("steps: integer, 1 to ") and lines[0].endswith(" [5]")
    assert lines[1] == f"    {meanings(plugins.settings_class('attack', 'pgd'))['steps']}"


def test_the_schema_for_editors_knows_all_experiments_and_their_mistakes() -> None:
    Draft202012Validator.check_schema(schema())
    validator = Draft202012Validator(schema())
    for path in sorted(EXPERIMENTS.glob("*.yaml")):
        assert list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))) == [], path
    for kind, name in (("attack", "pgd"), ("table", "overview"), ("update_rule", "sal"), ("hash_attack", "hag")):
        assert not validator.is_valid(with_settings(kind, name, {"no_such_key": 1})), name
    assert not validator.is_valid({key: value for key, value in QUICK.items() if key != "seeds"})


BROKEN = {"seeds": [0, 0]}


def test_a_broken_experiment_blocks_itself_only(tmp_path: Path) -> None:
    def write(name: str, keys: dict[str, Any]) -> None:
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")

    write("sound", QUICK)
    write("broken", QUICK | BROKEN)
    write("above", {"extends": "broken", "seeds": [0, 1]})
    write("higher", {"extends": "above"})
    write("borrower", QUICK | {"pretrain": {"experiment": "broken"}})
    (tmp_path / ".#sound.yaml").symlink_to("nobody@nowhere:1")
    (tmp_path / ".hidden.yaml").write_text(": [", encoding="utf-8")
    (tmp_path / "link.yaml").symlink_to("nothing")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "sound.yaml~").write_text(": [", encoding="utf-8")
    experiments = load_experiments(tmp_path)
    assert list(experiments) == ["sound"]
    assert set(experiments.broken) == {"broken", "above", "higher", "borrower", "link", "folder", "pipe"}
    reason = f"({tmp_path}/broken.yaml: seeds: 0 stands twice; take one away)"
    assert experiments.broken["above"].endswith(f"above.yaml: extends: 'broken' is broken {reason}")
    assert experiments.broken["borrower"].endswith(f"borrower.yaml: pretrain.experiment: 'broken' is broken {reason}")
    assert experiments.broken["link"].endswith(
        "link.yaml: this is a link to nothing; take it away, or put an experiment there"
    )
    for line in experiments.warnings():
        assert line.startswith(f"{tmp_path}/") and line.endswith("; the other experiments are not affected")
        assert "\n" not in line
    assert load_experiment(tmp_path, "sound") == experiments["sound"]
    with pytest.raises(UserError, match="unknown experiment 'sond'; did you mean 'sound'"):
        load_experiment(tmp_path, "sond")
