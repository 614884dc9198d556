"""The configuration: what is accepted, and the one line for what is not."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import SettingsModel
from creditflow.core.settings_docs import describe
from creditflow.populations.settings import PopulationSettings
from creditflow.training.settings import TrainingSettings
from creditflow.workflow.experiment_model import ExperimentKeys
from creditflow.workflow.experiments import Experiments, find
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.outputs import record_paths, start
from creditflow.workflow.requests import check_target, check_targets, check_workflow
from creditflow.workflow.workflow_model import WorkflowKeys
from helpers import ROOT

#: libyaml's where it is there: it is ten times as fast.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

QUICK: dict[str, Any] = yaml.safe_load((ROOT / "config/experiments/quick.yaml").read_text(encoding="utf-8"))
for _name in ("boundary", "hopskipjump"):  # so that tests can choose other seeds
    del QUICK["attacks"][_name]["seeds"]


def load(folder: Path, **experiments: Any) -> Experiments:
    for name, keys in experiments.items():
        text = keys if isinstance(keys, str) else yaml.dump(keys, Dumper=DUMPER)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_experiments(folder)


def changed(path: str, value: Any) -> dict[str, Any]:
    """`quick` with one key at a dotted path replaced."""
    keys = copy.deepcopy(QUICK)
    *parents, last = path.split(".")
    place = keys
    for part in parents:
        place = place[part]
    place[last] = value
    return keys


def test_every_experiment_of_the_project_is_valid() -> None:
    assert "quick" in load_experiments(ROOT / "config/experiments")


def test_quick_is_what_the_readme_promises() -> None:
    quick = load_experiments(ROOT / "config/experiments")["quick"]
    assert len(list(quick.chains())) == 5 * 3
    everywhere = [("fgsm", "exact"), ("pgd", "exact"), ("cascade", "exact")]
    everywhere += [(name, "none") for name in ("boundary", "hopskipjump")]
    everywhere += [("transfer", f"surrogate:{name}") for name in ("twin", "other_seed")]
    for rule in quick.keys["rules"]:
        through_its_own = [("fgsm", "feedback"), ("pgd", "feedback")] if rule != "bp" else []
        assert {*everywhere, *through_its_own} <= set(quick.conditions("fashion_5_9", rule, 0))
    met = {attack for rule in ("bp", "frsf", "brsf") for attack, _ in quick.conditions("fashion_5_9", rule, 0)}
    of_another_paper = {"pgd_mse", "pgd_mse_code", "fgsm_mse"}
    of_models_that_hide_their_slope = {"pgd_smoothed"}
    assert met == set(plugins.names("attack")) - of_another_paper - of_models_that_hide_their_slope
    assert [
        rule for rule in quick.keys["rules"] if ("pgd_eot", "feedback") in quick.conditions("fashion_5_9", rule, 2)
    ] == ["brsf"]
    models = [(rule, seed) for rule in quick.keys["rules"] for seed in quick.keys["seeds"]]
    n_conditions = sum(len(list(quick.conditions("fashion_5_9", *model))) for model in models)
    n_measured = sum(len(quick.why_gradients(*model)) for model in models)
    assert len(record_paths(quick, Path("results"))) == 3 * 5 + n_conditions + n_measured
    for attack in ("fgsm", "pgd"):
        assert quick.keys["attacks"][attack]["epsilons"] == [0, 0.005, 0.01, 0.05, 0.1, 0.5]
        assert quick.keys["attacks"][attack]["images"] >= 300
    for attack in ("boundary", "hopskipjump"):
        assert quick.keys["attacks"][attack]["images"] >= 32


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("rules", ["bp", "frfs"], "rules: unknown rule 'frfs'; did you mean 'frsf'"),
        ("backbones", ["resnet"], "backbones: unknown backbone 'resnet'"),
        ("datasets.fashion_0_4.source", "fashion", "datasets: unknown dataset 'fashion'; did you mean 'fashion_mnist'"),
        (
            "attacks.pgdd",
            {"epsilons": [0.1], "images": 1, "batch_size": 1},
            "attacks: unknown attack 'pgdd'; did you mean 'pgd'",
        ),
        ("figures.figure7", {}, "figures: unknown figure 'figure7'"),
        ("finetune.settings.epoch", 3, "finetune.settings: unknown key 'epoch'; did you mean 'epochs'"),
        ("sedes", [1], "unknown key 'sedes'; did you mean 'seeds'"),
        ("attacks.pgd.epsilons", [0.1, -0.1], "attacks.pgd.epsilons.1 must be at least 0, not -0.1"),
        ("attacks.pgd.epsilons", [], "attacks.pgd.epsilons must be a list of at least 1, not []"),
        ("attacks.pgd.epsilons", [0.1, 0.1], "attacks.pgd.epsilons: epsilons must rise, each once, not [0.1, 0.1]"),
        ("seeds", [], "seeds must be a list of at least 1, not []"),
        ("rules", [], "rules must be a list of at least 1, not []"),
        ("seeds", ["a"], "seeds.0 must be an integer, not 'a'"),
        (
            "finetune.settings.learning_rate",
            0,
            "finetune.settings.learning_rate must be above 0, not 0",
        ),
        ("finetune.datasets", ["fashion"], "finetune.datasets: 'fashion' is not under `datasets`"),
        (
            "pretrain.dataset",
            "fashion_04",
            "pretrain.dataset: 'fashion_04' is not under `datasets`; did you mean 'fashion_0_4'",
        ),
        ("gradients", ["exakt"], "gradients.0: unknown gradient 'exakt'; did you mean 'exact'"),
        ("extends", "nothing", "extends: unknown experiment 'nothing'"),
        ("extends", "wrong", "extends: 'wrong' leads back to itself"),
        ("extends", ["quick"], "extends: ['quick'] is not the name of an experiment"),
        ("attacks.pgd.epsilons", [0.1, float("nan")], "attacks.pgd.epsilons.1 must be a finite number, not nan"),
        (
            "finetune.settings.learning_rate",
            float("inf"),
            "finetune.settings.learning_rate must be a finite number, not inf",
        ),
        (
            "finetune.overrides",
            {"fashion_59": {"epochs": 1}},
            "finetune.overrides: 'fashion_59' is not under `datasets`",
        ),
        ("finetune.overrides", {"fashion_5_9": {"epoch": 1}}, "finetune.overrides.fashion_5_9: unknown key 'epoch'"),
        (
            "pretrain",
            {"weights": "IMAGENET1K_V1", "start": "random"},
            "pretrain: give one of dataset, weights, files, experiment, start, not w",
        ),
        ("pretrain", {"settings": {"epochs": 1}}, "pretrain.settings: batch_size is missing"),
        (
            "pretrain",
            {"files": {}},
            "pretrain: give one of dataset, weights, files, experiment, start, not none of them",
        ),
        (
            "pretrain",
            {"start": "random", "files": {"lenet5": {"path": "x", "sha256": "0" * 8}}},
            "pretrain: give one of dataset, weights, files, experiment, start, not files and start",
        ),
        (
            "pretrain",
            {"files": {"resnet18": {"path": "x", "sha256": "0" * 8}}},
            "pretrain.files: lenet5 is missing; name the file of its weights, or give `weights`",
        ),
        (
            "pretrain",
            {"files": {"lenet5": {"path": "x", "sha256": "0" * 8}}},
            "pretrain.files.lenet5: the size of its images is not known; give input.size",
        ),
        (
            "pretrain",
            {"files": {"lenet5": {"path": "x", "sha256": "0" * 8, "factory": "nets.py:make"}}},
            "pretrain.files.lenet5: it is not made by a factory; `factory` goes with the backbone from_factory",
        ),
        (
            "pretrain",
            {"files": {"lenet5": {"path": "x", "sha256": "0" * 8, "factory": "nets"}}},
            "pretrain.files.lenet5.factory: 'nets' names no model; write file.py:function",
        ),
        ("pretrain", {"dataset": "fashion_0_4"}, "pretrain: settings is missing"),
        ("pretrain", {"experiment": "quik"}, "pretrain.experiment: unknown experiment 'quik'"),
        ("pretrain", {"experiment": "wrong"}, "pretrain.experiment: 'wrong' does not pretrain models itself"),
        ("pretrain", {"start": "cold"}, "pretrain.start must be 'random', not 'cold'"),
        (
            "pretrain",
            {"weights": "IMAGENET1K_V1", "files": {"resnet": {"path": "x", "sha256": "0" * 8}}},
            "pretrain.files: unknown backbone 'resnet'; did you mean 'resnet18'",
        ),
        ("finetune.settings", {"epoch": 1}, "finetune.settings: unknown key 'epoch'; did you mean 'epochs'"),
        ("input", {"siz": 32}, "input: unknown key 'siz'; did you mean 'size'"),
        ("input", {"size": 0}, "input.size must be at least 1, not 0"),
        ("input", {"backbones": {"resnet": {"size": 32}}}, "input.backbones: unknown backbone 'resnet'"),
        ("input", {"resize": "stretch"}, "input.resize must be 'squash' or 'crop', not 'stretch'"),
        ("attacks.pgd.datasets", ["fashion_0_4"], "attacks.pgd.datasets: 'fashion_0_4' is not under `datasets`"),
        ("datasets.fashion_5_9.source", "coco", "attacks.apgd_ce: images of fashion_5_9 may have several labels"),
        ("threads", 0, "threads must be at least 1, not 0"),
        ("attacks.pgd.epsilons", [0.1, 0.05], "attacks.pgd.epsilons: epsilons must rise, each once, not [0.1, 0.05]"),
        ("attacks.pgd.rules", ["sal"], "attacks.pgd.rules: 'sal' is not under `rules`"),
        (
            "attacks.pgd.gradients",
            ["exakt"],
            "attacks.pgd.gradients.0: unknown gradient 'exakt'; did you mean 'exact'",
        ),
        (
            "rules",
            ["frsf", "usf", "brsf"],
            "attacks.apgd_ce.rules: 'bp' is not under `rules`; choose from: frsf, usf, brsf",
        ),
        ("audit.claim", "fab", "audit.claim: 'fab' is not under `audit.attacks`"),
        ("audit.attacks", ["pgd", "boundary"], "audit.attacks: boundary bounds another norm than pgd"),
        ("audit.attacks", ["pgd", "fab"], "audit.attacks: fab does not attack every rule"),
        ("attacks.cascade.rules", ["frsf"], "audit.attacks: cascade does not attack every rule"),
        ("audit.claim", "transfer", "audit.claim: transfer must use a gradient and attack every rule"),
        ("audit.claim", "pgd_eot", "audit.claim: pgd_eot must use a gradient and attack every rule"),
        ("gradients", ["feedback"], "attacks.apgd_ce.gradients: 'exact' is not under `gradients`"),
        (
            "seeds",
            [0],
            "attacks.transfer: transfers from `bp` of another seed, but lenet5 has one seed; add a second one",
        ),
        ("attacks.cascade.seeds", [0], "audit.attacks: cascade leaves out seeds"),
        ("attacks.square.seeds", [7], "attacks.square.seeds: 7 is not under `seeds`"),
        ("audit.epsilons", [0.2], "audit.attacks: fgsm has no epsilon 0.2"),
        ("tables.audit_guards", {}, "audit shows the audit; add `audit`"),
    ],
)
def test_mistakes_are_named_with_file_and_key(path: str, value: Any, message: str, tmp_path: Path) -> None:
    keys = changed(path, value)
    if "add `audit`" in message:
        del keys["audit"]
    if path == "rules" and "transfers" in message:
        del keys["audit"], keys["tables"]["audit"], keys["tables"]["audit_guards"], keys["figures"]["audit"]
        for attack in ("pgd_eot", "apgd_dlr", "apgd_targeted", "fab", "tpgd", "few_pixel"):
            del keys["attacks"][attack]
    with pytest.raises(UserError) as caught:
        find(load(tmp_path, wrong=keys), "wrong")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/wrong.yaml: {message}"), text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("a: 2026-13-01", "'2026-13-01' is a date in YAML 1.1; put it in quotes"),
        ("a: &a [*a]", "a value contains itself"),
        (f"a: {'[' * 300_000}", "more than 100 levels"),
        ("- a", "expected keys and values"),
        ("", "expected keys and values"),
        ("description: x", "datasets is missing"),
    ],
)
def test_files_that_are_no_experiment(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        find(load(tmp_path, wrong=text), "wrong")


def test_no_experiment_at_all_and_a_reserved_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no experiments"):
        load(tmp_path)
    for name in ("data", "attack", "my exp-2", "prefetch_x"):
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(UserError, match=f"cannot be called '{name}'"):
            find(load(folder, **{name: QUICK}), name)


def test_extends_merges_mappings_and_replaces_lists(tmp_path: Path) -> None:
    over = {"extends": "base", "seeds": [0, 7], "attacks": {"pgd": {"settings": {"steps": 9}}}}
    found = load(tmp_path, base=QUICK, over=over, more={"extends": "over", "backbones": ["small_cnn"]})
    keys = found["more"].keys
    assert (keys["seeds"], keys["backbones"]) == ([0, 7], ["small_cnn"])
    assert keys["attacks"]["pgd"]["settings"] == QUICK["attacks"]["pgd"]["settings"] | {"steps": 9}
    assert keys["attacks"]["fgsm"] == QUICK["attacks"]["fgsm"]
    assert found["base"].keys == QUICK
    fewer = load(
        tmp_path,
        base=QUICK,
        fewer={
            "extends": "base",
            "audit": None,
            "tables": {"audit": None, "audit_guards": None},
            "figures": {"audit": None},
        },
    )
    assert "audit" not in fewer["fewer"].keys
    assert set(fewer["fewer"].keys["tables"]) == set(QUICK["tables"]) - {"audit", "audit_guards"}


def test_the_workflows_own_configuration(tmp_path: Path) -> None:
    found = load(tmp_path, quick=QUICK)
    good = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    check_workflow(good, found)
    for change, message in [
        ({"default_experiment": "quik"}, "unknown experiment 'quik'; did you mean 'quick'"),
        ({"device": "gpu"}, "device must be a text that matches .*, not 'gpu'"),
        ({"data": {}}, "data: search_paths is missing"),
        ({"devise": "cpu"}, "unknown key 'devise'; did you mean 'device'"),
    ]:
        with pytest.raises(UserError, match=message):
            check_workflow(good | change, found)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("quik", "'quik' is neither an experiment nor a rule; did you mean 'quick'"),
        ("figure2.pdf", "'figure2.pdf' is neither an experiment nor a rule"),
        ("results/quik/figures/figure2.pdf", "unknown experiment 'quik'; did you mean 'quick'"),
        (
            "results/quick/figures/figure3.pdf",
            "makes no such file; the nearest it makes is results/quick/figures/figure2.pdf",
        ),
        (
            "results/quick/figures/figure2.jpg",
            "makes no such file; the nearest it makes is results/quick/figures/figure2.p",
        ),
        (
            "results/quick/table/table1.csv",
            "makes no such file; the nearest it makes is results/quick/tables/table1.csv",
        ),
        ("results/quick", "makes no such file"),
        (
            "results/quick/pretrain/lenet5/seed9.json",
            "makes no such file; the nearest it makes is results/quick/pretrain/lenet5/seed",
        ),
    ],
)
def test_targets_that_nothing_makes_are_explained(target: str, message: str, tmp_path: Path) -> None:
    found = load(tmp_path, quick=QUICK)
    with pytest.raises(UserError, match=message):
        check_target(target, found, ["all", "quick"])


POSSIBLE = [
    "quick",
    "all",
    "results/quick/figures/figure2.svg",
    "results/quick/tables/table1.tex",
    "results/quick/records.parquet",
    "results/quick/attack/fashion_5_9/lenet5/frsf/pgd/feedback/seed2.json",
    "results/quick/finetune/fashion_5_9/lenet5/brsf/seed0.feedback.safetensors",
    "results/data/digits/raw",
]


@pytest.mark.parametrize("target", POSSIBLE)
def test_targets_that_can_be_made_pass(target: str, tmp_path: Path) -> None:
    check_target(target, load(tmp_path, quick=QUICK), ["all", "quick"])


leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=True) | st.text(max_size=5)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from([*sorted(QUICK), "extends"]), value=values)
@example(key="attacks", value={"\n": {"": None}})
@example(key="audit", value={"\n": None})
def test_any_value_under_any_key_is_accepted_or_explained(
    key: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        find(load(folder, fuzz=QUICK | {key: value}), "fuzz")
    except UserError as error:
        assert "\n" not in str(error)
        assert "fuzz.yaml" in str(error)


def test_plugins_are_read_without_importing_them() -> None:
    assert plugins.declared("attack", "pgd", "uses_gradient") is True
    assert plugins.declared("attack", "boundary", "uses_gradient") is False
    assert plugins.docstring("figure", "figure2").startswith("Robust accuracy")
    with pytest.raises(UserError, match="must declare nothing="):
        plugins.declared("attack", "pgd", "nothing")


@pytest.mark.parametrize("model", [WorkflowKeys, ExperimentKeys, TrainingSettings, PopulationSettings])
def test_the_readme_of_the_configuration_names_every_key(model: type[SettingsModel]) -> None:
    text = (ROOT / "config/README.md").read_text(encoding="utf-8")
    for row in describe(model, nested=False):
        assert f"| `{row.key}` | {row.kind} |" in text, row.key


@pytest.mark.parametrize("targets", [["wrong"], ["prefetch_wrong"], ["results/wrong/figures/figure2.pdf"], [], ["all"]])
def test_who_asks_for_a_broken_experiment_is_told_what_is_wrong_with_it(targets: list[str], tmp_path: Path) -> None:
    found = load(tmp_path, quick=QUICK, wrong=changed("attacks.pgd.settings", {"stepz": 3}))
    message = f"{tmp_path}/wrong.yaml: attacks.pgd.settings: unknown key 'stepz'; did you mean 'steps'?"
    assert found.warnings() == [f"{message}; the other experiments are not affected"]
    for sound in (["quick"], ["prefetch_quick"], ["results/quick/figures/figure2.pdf"], ["results/data/digits/raw"]):
        check_targets(sound, found, ["all", "quick", "prefetch_quick"], "wrong")
    with pytest.raises(UserError) as caught:
        check_targets(["quick", *targets] if targets else [], found, ["all", "quick"], "wrong")
    assert str(caught.value) == message
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    check_workflow(config | {"default_experiment": "wrong"}, found)
    with pytest.raises(UserError, match="unknown experiment 'wrog'; did you mean 'wrong'"):
        check_workflow(config | {"default_experiment": "wrog"}, found)


@pytest.mark.parametrize(
    ("path", "value"),
    [("seeds", [2**64]), ("threads", 10**6), ("attacks.pgd.images", 10**9), ("attacks.pgd.epsilons", [0, 1e9])],
)
def test_numbers_have_a_greatest_value(path: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be at most"):
        find(load(tmp_path, wrong=changed(path, value)), "wrong")


@pytest.mark.parametrize("path", ["pretrain.dataset", "attacks.pgd.rules", "audit", "datasets.fashion_0_4.classes"])
def test_null_takes_away_nothing_where_nothing_is_extended(path: str, tmp_path: Path) -> None:
    key = path.rpartition(".")[2]
    with pytest.raises(UserError, match=f"{key} is null, which only takes away what `extends` brings; leave {key} out"):
        find(load(tmp_path, wrong=changed(path, None)), "wrong")


def test_a_fine_tuning_starts_where_pretrain_says(tmp_path: Path) -> None:
    other = {"extends": "base", "pretrain": {"experiment": "base"}}
    random = {**QUICK, "pretrain": {"start": "random"}}
    published = {
        **QUICK,
        "backbones": ["resnet18"],
        "input": {"size": 64, "channels": 3},
        "pretrain": {"weights": "IMAGENET1K_V1"},
    }
    found = load(tmp_path, base=QUICK, random=random, published=published)
    assert start(found["base"], Path("results"), "lenet5", 1) == Path("results/base/pretrain/lenet5/seed1")
    assert start(found["random"], Path("results"), "lenet5", 1) is None
    assert start(found["published"], Path("results"), "resnet18", 1) == Path(
        "results/published/pretrain/resnet18/imported"
    )
    del other["extends"]
    found = load(tmp_path, base=QUICK, other=QUICK | other)
    assert start(found["other"], Path("results"), "lenet5", 1) == Path("results/base/pretrain/lenet5/seed1")
    with pytest.raises(UserError, match=r"pretrain.experiment: 'base' has no seeds 9"):
        find(load(tmp_path, base=QUICK, other=QUICK | other | {"seeds": [0, 9]}), "other")
    with pytest.raises(UserError, match=r"lenet5 has another `input` in 'base'"):
        find(load(tmp_path, base=QUICK, other=QUICK | other | {"input": {"size": 32}}), "other")


def test_settings_and_inputs_of_single_datasets_and_backbones() -> None:
    paper = load_experiments(ROOT / "config/experiments")["sign_symmetry"]
    assert [paper.training(dataset)["epochs"] for dataset in ("cifar10", "coco", "nus_wide", "imagenet")] == [
        20,
        20,
        10,
        10,
    ]
    assert paper.training("imagenet")["learning_rate"] == 1e-5
    fashion = load_experiments(ROOT / "config/experiments")["sign_symmetry_fashion"]
    assert fashion.input("alexnet") == {"size": 64, "channels": 3}
    assert fashion.input("resnet18") == {"size": 32, "channels": 3}
    assert list(paper.conditions("nus_wide", "bp", 0)) == []
    assert ("pgd", "feedback") in paper.conditions("coco", "frsf", 0)
