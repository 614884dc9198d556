"""Experiments with given models: what they make, and what they may not say."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from creditflow.core.errors import UserError
from creditflow.data.image_folders import source_id
from creditflow.workflow import given_models, outputs
from creditflow.workflow.experiments import Experiment, Experiments
from creditflow.workflow.loading import load_experiment
from creditflow.workflow.requests import check_targets
from helpers import ROOT

BASE = yaml.safe_load((ROOT / "examples/mine.yaml").read_text(encoding="utf-8"))
RESULTS = Path("results")


def load(folder: Path, **changes: Any) -> Experiment:
    """Loads the example with values at paths replaced (`a__b` is `b` in `a`); None takes a key away."""
    keys: dict[str, Any] = deepcopy(BASE)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = keys
        for parent in parents:
            place = place[parent]
        place[last] = value
        if value is None:
            del place[last]
    (folder / "mine.yaml").write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    return load_experiment(folder, "mine")


def test_the_name_of_a_model_stands_where_a_rule_stands(tmp_path: Path) -> None:
    mine = load(tmp_path, models__mine__seeds=[0, 2])
    assert [chain[1:] for chain in mine.chains()] == [
        *(("given_models", "mine", seed) for seed in (0, 2)),
        *(("given_models", "plain", seed) for seed in (0, 1, 2)),
    ]
    assert mine.keys["audit"]["reference"] == mine.reference == "plain"
    chain = ("all_digits", "given_models", "mine", 2)
    model = outputs.model(mine, RESULTS, chain)
    assert str(model) == "results/mine/model/all_digits/given_models/mine/seed2"
    assert outputs.identity(mine, chain)["stage"] == "import_model"
    assert list(mine.conditions("all_digits", "mine", 2)) == [
        *(("pgd", gradient) for gradient in ("exact", "own")),
        *(("transfer", f"surrogate:{name}") for name in ("twin", "other_seed")),
        ("cascade", "exact"),
    ]
    surrogates = {seed: mine.surrogates(("all_digits", "given_models", "plain", seed), "transfer") for seed in (1, 2)}
    assert surrogates[1] == {
        "twin": ("all_digits", "given_models", "mine", 0),  # it has no seed 1
        "other_seed": ("all_digits", "given_models", "plain", 2),
    }
    assert surrogates[2]["twin"] == chain
    files = outputs.user_files(mine)
    assert {str(path) for path in files} == {
        "examples/my_model.py",
        *(f"weights/mine_{seed}.pt" for seed in (0, 2)),
        *(f"weights/reference_{seed}.pt" for seed in (0, 1, 2)),
    }


def test_a_reference_of_one_seed_is_the_only_surrogate(tmp_path: Path) -> None:
    weights = {f"models__{name}__weights": f"{name}.pt" for name in ("mine", "plain")}
    mine = load(tmp_path, seeds=[7], models__mine__sha256="0123abcd", **weights)
    assert [gradient for attack, gradient in mine.conditions("all_digits", "mine", 7) if attack == "transfer"] == [
        "surrogate:twin"
    ]
    assert mine.surrogates(("all_digits", "given_models", "mine", 7), "cascade") == {
        "twin": ("all_digits", "given_models", "plain", 7)
    }
    assert given_models.digest(mine.keys, "mine", 7) == "0123abcd"
    assert given_models.digest(mine.keys, "plain", 7) is None


def test_digests_and_files_belong_to_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", str(tmp_path))
    digits = [f"{seed:08x}" for seed in range(3)]
    mine = load(tmp_path, models__mine__sha256=digits, models__mine__weights="$PLACE/w{seed}.safetensors")
    assert [given_models.digest(mine.keys, "mine", seed) for seed in range(3)] == digits
    assert given_models.weights_file(mine.keys, "mine", 2) == tmp_path / "w2.safetensors"
    mine = load(tmp_path, models__plain__factory="torchvision:resnet18:10")
    assert given_models.factory_file(mine.keys, "plain") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models__mine__factory": "my_model.py"}, "models.mine.factory: 'my_model.py' names a file, but no function"),
        ({"models__mine__factory": "some words"}, "models.mine.factory: 'some words' names no model; write file.py:"),
        ({"models__mine__weight": "a.pt"}, "models.mine: unknown key 'weight'; did you mean 'weights'?"),
        ({"models__mine__sha256": "xyz"}, "models.mine.sha256"),
        ({"models__mine__sha256": "0123abcd"}, "models.mine.sha256: 1 for the 3 files of the seeds"),
        ({"models__mine__weights": "a.pt"}, "models.mine: the seeds 0, 1, 2 would all be the same network; name"),
        ({"models__mine__weights": None}, "models.mine: the seeds 0, 1, 2 would all be the same network; name"),
        ({"models__mine__seeds": [3]}, "models.mine.seeds: 3 is not under `seeds`"),
        ({"models__plain__reference": False}, "audit: models are compared with one of them; mark that one"),
        ({"models__mine__reference": True}, "models: mine and plain are both the reference; mark one of them"),
        ({"models__mine": None}, "audit: there is no model beside plain to compare"),
        ({"models__frsf": {"factory": "a.py:f"}}, "models.frsf: that is the name of a learning rule"),
        ({"models__bp_head_only": {"factory": "a.py:f"}}, "models.bp_head_only: that is the name of a network matched"),
        ({"input": {"upsample": 16}}, "input.upsample: a network of the project's backbones enlarges images; its fac"),
        ({"models__plain__seeds": [0, 1]}, "attacks.transfer: transfers from plain, which has no model of seed 2"),
        ({"rules": ["bp"]}, "given `models` are classifiers, and nothing is trained; take `rules` away"),
        ({"backbones": ["lenet5"]}, "given `models` are classifiers, and nothing is trained; take `backbones` away"),
        ({"models": None}, "rules is missing (or `models`, for networks that are there already)"),
        ({"attacks__pgd__rules": ["mine", "plian"]}, "attacks.pgd.rules: 'plian' is not under `models`; did you mean"),
        ({"attacks__transfer__twin": "plain"}, "attacks.transfer.twin: 'plain' is not under `models`; choose from"),
        ({"gradients": ["exact", "feedback"]}, "gradients: feedback: it is that of rules, which no given model has"),
        ({"audit__reference": "bp"}, "audit.reference: mark one of the models with `reference: true` instead"),
        ({"datasets__all_digits__path": "here"}, "datasets.all_digits.path has no effect: digits lies in no folder"),
        ({"datasets__all_digits__source": "image_folder"}, "datasets.all_digits: path is missing; name the folder"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_without_an_audit_no_reference_is_needed(tmp_path: Path) -> None:
    lighter = {"audit": None, "tables": {}, "figures": {}, "models__plain__reference": False}
    with pytest.raises(UserError, match=r"attacks\.transfer: transfers from the reference; mark a model with"):
        load(tmp_path, **lighter)
    pgd = {"pgd": BASE["attacks"]["pgd"]}
    alone = load(tmp_path, **lighter, attacks=pgd, models__mine=None)
    assert alone.reference is None and len(list(alone.chains())) == 3


def test_trained_networks_have_no_own_gradient(tmp_path: Path) -> None:
    quick = yaml.safe_load((ROOT / "config/experiments/quick.yaml").read_text(encoding="utf-8"))
    quick["gradients"].append("own")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(quick), encoding="utf-8")
    with pytest.raises(UserError, match="gradients: own: it is that of given `models`; say exact or feedback"):
        load_experiment(tmp_path, "mine")


def test_files_that_are_not_there_are_named_when_they_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = {"source": "image_folder", "path": "images", "split": {"test": 0.5}}
    experiments = Experiments({"mine": load(tmp_path, datasets__all_digits=images)}, {})
    model = "results/mine/model/all_digits/given_models/mine/seed0.json"
    for path, key in (
        ("images/", "datasets.all_digits.path: there is no folder images"),
        ("examples/my_model.py", "models.mine.factory: there is no file examples/my_model.py"),
        *(
            (f"weights/mine_{seed}.pt", f"models.mine.weights: there is no file weights/mine_{seed}.pt")
            for seed in "012"
        ),
        *((f"weights/reference_{seed}.pt", "models.plain.weights: there is no file") for seed in "012"),
    ):
        for targets in (["mine"], ["prefetch_mine"], [model], ["all"], []):
            with pytest.raises(UserError, match=f"experiment mine: {key}"):
                check_targets(targets, experiments, ["mine", "prefetch_mine", "all"], "mine")
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).mkdir() if path.endswith("/") else Path(path).touch()
    check_targets(["mine"], experiments, ["mine"], "mine")


def test_each_folder_of_images_is_a_dataset_of_its_own() -> None:
    view = {"source": "image_folder", "path": "~/My Photos/"}
    assert source_id({"source": "digits"}) == "digits"
    assert source_id(view).startswith("image_folder-my_photos-")
    others = [view | {"path": "elsewhere/My Photos"}, view | {"split": {"test": 0.2}}, view | {"split": {"test": 0.3}}]
    assert len({source_id(each) for each in (view, *others)}) == 4
    assert source_id(view | {"classes": [0, 1]}) == source_id(view)  # a choice among the images of one dataset
