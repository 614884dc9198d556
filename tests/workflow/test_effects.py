"""A key that is accepted has an effect: combinations in which one has none end in one line, before any job."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from creditflow.core import plugins
from creditflow.core.effects import idle_keys
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.settings import PopulationSettings
from creditflow.workflow.loading import load_experiment
from helpers import ROOT

FOLDER = ROOT / "config/experiments"
QUICK: dict[str, Any] = yaml.safe_load((FOLDER / "quick.yaml").read_text(encoding="utf-8"))
RETRIEVAL: dict[str, Any] = yaml.safe_load((FOLDER / "retrieval_fashion.yaml").read_text(encoding="utf-8"))
ATTACK = {"epsilons": [0.1], "images": 8, "batch_size": 8}
POPULATION: dict[str, Any] = {
    "description": "two rules",
    "datasets": {"digits": {"source": "digits"}, "more": {"source": "digits", "classes": [0, 1]}},
    "rules": ["bp", "sal", "pepita"],
    "seeds": [0, 1],
    "threads": 1,
    "gradients": ["exact"],
    "population": {
        "datasets": ["digits", "more"],
        "settings": {"hidden": [8], "epochs": 2, "batch_size": 8},
        "variants": {
            "small": {"learning_rates": {"digits": {"bp": [0.1], "sal": [0.1]}}},
            "large": {"learning_rates": {"more": {"bp": [0.1], "pepita": [0.1]}}, "seeds": [0]},
        },
    },
    "attacks": {"pgd": ATTACK, "square": ATTACK, "boundary": ATTACK, "few_pixel": ATTACK | {"epsilons": [1]}},
    "tables": {},
    "figures": {},
}
WHOLE = {"quick": QUICK, "retrieval": RETRIEVAL, "population": POPULATION}


def changed(whole: str, changes: dict[str, Any]) -> dict[str, Any]:
    """An experiment with keys at dotted paths replaced; `...` takes a key away."""
    keys: dict[str, Any] = json.loads(json.dumps(WHOLE[whole]))  # a copy in which nothing is shared
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = keys
        for part in parents:
            place = place.setdefault(part, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return keys


def load(folder: Path, keys: dict[str, Any]) -> str:
    """Loads an experiment. Returns what is wrong with it, without the name of the file; nothing if it is sound."""
    (folder / "mine.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    try:
        load_experiment(folder, "mine")
    except UserError as error:
        assert "\n" not in str(error)
        return str(error).removeprefix(f"{folder}/mine.yaml: ")
    return ""


SETTINGS, SMALL, LARGE = "population.settings", "population.variants.small", "population.variants.large"
PGD = "attacks.pgd"
ADVERSARY = {"epsilon": 0.1}
HAG = "attacks.hag"

#: The experiment, what is changed, and the beginning of the line.
WITHOUT_EFFECT: list[tuple[str, dict[str, Any], str]] = [
    # Settings of one thing that matter only together with others.
    (
        "population",
        {f"{SETTINGS}.optimizer": {"beta1": 0.5}},
        f"{SETTINGS}: optimizer.beta1 has no effect with kind: s",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"stability": 0.5}},
        f"{SETTINGS}: optimizer.stability has no effect with",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"layer_stabilities": [0.5, 0.5]}},
        f"{SETTINGS}: optimizer.layer_stabilities has no effect with kind: sgd",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"kind": "adam", "momentum": 0.9}},
        f"{SETTINGS}: optimizer.momentum has no effect with kind: adam",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"kind": "adam", "stability": 0.1, "layer_stabilities": [0.5, 0.5]}},
        f"{SETTINGS}: optimizer.stability has no effect beside layer_stabilities",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"drop_factor": 0.5}},
        f"{SETTINGS}: optimizer.drop_factor has no effect without drop_epochs",
    ),
    ("population", {f"{SETTINGS}.dampings": [1.0]}, f"{SETTINGS}: dampings has no effect without layer_angles"),
    (
        "population",
        {f"{SETTINGS}.select_on": "test", f"{SETTINGS}.validation_images": 7},
        f"{SETTINGS}: validation_images has no effect with select_on: test",
    ),
    ("population", {f"{SETTINGS}.adversary_images": 7}, f"{SETTINGS}: adversary_images has no effect with select: nat"),
    ("population", {f"{SETTINGS}.adversary": ADVERSARY}, f"{SETTINGS}: adversary has no effect without select: advers"),
    (
        "population",
        {f"{SETTINGS}.training_adversary": ADVERSARY},
        f"{SETTINGS}: training_adversary has no effect without adversarial_training",
    ),
    (
        "population",
        {f"{SMALL}.settings.feedback_optimizer": {"drop_epochs": [1]}},
        f"{SETTINGS}: feedback_optimizer.drop_epochs has no effect on feedback",
    ),
    (
        "population",
        {f"{SMALL}.settings.feedback_optimizer": {"layer_rates": [1, 2]}},
        f"{SETTINGS}: feedback_optimizer.layer_rates has no effect on feedback",
    ),
    (
        "population",
        {f"{SMALL}.settings.rules.sal.rule": {"plastic": ["w"], "rate_v": 2.0}},
        f"{SETTINGS}: rule sal: rate_v has no effect while v is not among plastic",
    ),
    (
        "population",
        {f"{SETTINGS}.trained_layers": [1, 9]},
        "population.variants.small: settings of bp on digits: trained_layers must name some of the layers 1 to 2",
    ),
    (
        "population",
        {f"{SETTINGS}.optimizer": {"layer_rates": [1, 1, 1]}},
        "population.variants.small: settings of bp on digits: optimizer.layer_rates has 3 entries for 2 layers",
    ),
    ("population", {"input.resize": "crop"}, "input: resize has no effect without size"),
    ("quick", {"input": {"resize": "crop"}}, "input: resize has no effect without size"),
    (
        "quick",
        {"attacks.hopskipjump.settings": {"initial_evaluations": 200, "max_evaluations": 100}},
        "attacks.hopskipjump.settings: initial_evaluations has no effect above max_evaluations",
    ),
    (
        "retrieval",
        {HAG: ATTACK | {"settings": {"step": "sign", "rate": 3.0}}},
        f"{HAG}.settings: rate has no effect with step: sign",
    ),
    (
        "retrieval",
        {HAG: ATTACK | {"settings": {"step": "l2", "momentum": 0.5}}},
        f"{HAG}.settings: momentum has no effect with step: l2",
    ),
    (
        "retrieval",
        {HAG: ATTACK | {"settings": {"relative_step": 0.5}}},
        f"{HAG}.settings: relative_step has no effect with step: gradient",
    ),
    ("retrieval", {"retrieval.loss": {"beta": 0.7}}, "retrieval.loss: beta has no effect: no image has two labels"),
    # Names that stand for nothing.
    ("quick", {"input": {"backbones": {"alexnet": {"size": 64}}}}, "input.backbones.alexnet has no effect: nothing is"),
    ("population", {"input": {"backbones": {"alexnet": {"size": 64}}}}, "input.backbones.alexnet has no effect"),
    (
        "quick",
        {"finetune.overrides": {"fashion_0_4": {"epochs": 1}}},
        "finetune.overrides: 'fashion_0_4' is not under `finetune.datasets`",
    ),
    (
        "quick",
        {
            "backbones": ["resnet18"],
            "pretrain": {
                "weights": "IMAGENET1K_V1",
                "files": {"vgg16": {"path": "x", "sha256": "0" * 8}},
            },
        },
        "pretrain.files.vgg16 has no effect: nothing is trained with it",
    ),
    (
        "quick",
        {"pretrain": {"start": "random", "settings": QUICK["pretrain"]["settings"]}},
        "pretrain.settings has no effect: they are for a `dataset`",
    ),
    ("population", {"rules": ["bp", "sal", "pepita", "fa"]}, "rules: no model is trained for 'fa'"),
    ("population", {f"{SMALL}.seeds": [0]}, "seeds: no model is trained for 1"),
    (
        "population",
        {f"{LARGE}.learning_rates": {"digits": {"pepita": [0.1]}}},
        "population.datasets: no model is trained for 'more'",
    ),
    (
        "population",
        {f"{SMALL}.settings": {"rules": {"pepita": {"dropout": 0.1}}}},
        f"{SMALL}.settings.rules.pepita has no effect: there are no learning_rates for it",
    ),
    (
        "population",
        {f"{SMALL}.settings": {"datasets": {"more": {"epochs": 3}}}},
        f"{SMALL}.settings.datasets.more has no effect: there are no learning_rates for it",
    ),
    (
        "population",
        {f"{SMALL}.settings": {"datasets": {"digits": {"rules": {"pepita": {"epochs": 3}}}}}},
        f"{SMALL}.settings.datasets.digits.rules.pepita has no effect",
    ),
    ("population", {f"{SMALL}.rule_seeds": {"pepita": [0]}}, f"{SMALL}.rule_seeds.pepita has no effect"),
    # Restrictions of an attack that leave no model.
    ("population", {f"{PGD}.seeds": [1], f"{PGD}.backbones": ["large"]}, f"{PGD}.backbones: no model that is attacked"),
    ("population", {f"{PGD}.rules": ["sal"], f"{PGD}.datasets": ["more"]}, f"{PGD}.datasets: no model that is attac"),
    ("population", {f"{PGD}.rules": ["bp", "pepita"], f"{PGD}.seeds": [1]}, f"{PGD}.rules: no model that is attacked "),
    (
        "quick",
        {"attacks.boundary.gradients": ["exact"]},
        "attacks.boundary.gradients has no effect: this attack uses n",
    ),
    (
        "population",
        {"gradients": ["exact"], f"{PGD}.gradients": ["exact"], "attacks.square.gradients": ["exact"]},
        "attacks.square.gradients has no effect",
    ),
    (
        "retrieval",
        {
            "gradients": ["exact", "feedback"],
            **{f"attacks.{name}.gradients": ["exact"] for name in RETRIEVAL["attacks"]},
        },
        "gradients: no attack uses 'feedback'; take it away",
    ),
    # Sizes in another unit than the norm's.
    ("population", {f"{PGD}.epsilons": [0.1, 8]}, f"{PGD}.epsilons: pixels lie in [0, 1], so that 8 bounds nothing"),
    (
        "retrieval",
        {HAG: ATTACK | {"epsilons": [0.05, 0.1, 0.3, 8]}},
        f"{HAG}.epsilons: pixels lie in [0, 1], so that 8 bounds nothing",
    ),
    ("population", {"attacks.few_pixel.epsilons": [0.5]}, "attacks.few_pixel.epsilons: an L0 attack counts pixels"),
    # Sections of the other task.
    ("quick", {"retrieval": RETRIEVAL["retrieval"]}, "attacks: unknown hash attack"),
    ("population", {"retrieval": RETRIEVAL["retrieval"]}, "a population is trained from a random start, for classif"),
    ("population", {"finetune": QUICK["finetune"]}, "a population is trained from a random start, for classification"),
    ("quick", {"finetune.settings.proxy_learning_rate": 0.1}, "finetune.settings: unknown key 'proxy_learning_rate'"),
    ("retrieval", {"retrieval.tops": {"digits": 3}}, "retrieval.tops: 'digits' is not under `finetune.datasets`"),
    ("retrieval", {"audit": QUICK["audit"]}, "audit.attacks: 'fgsm' is not under `attacks`; choose from: hag"),
]


@pytest.mark.parametrize(("whole", "changes", "message"), WITHOUT_EFFECT)
def test_what_has_no_effect_is_refused(whole: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert load(tmp_path, changed(whole, changes)).startswith(message)


@pytest.mark.parametrize("whole", WHOLE)
def test_the_experiments_that_were_changed_are_sound(whole: str, tmp_path: Path) -> None:
    assert load(tmp_path, WHOLE[whole]) == ""


#: What is common to several populations has an effect as soon as it has one for some of them.
COMMON: list[tuple[str, dict[str, Any]]] = [
    ("population", {f"{SETTINGS}.adversary": ADVERSARY, f"{SMALL}.settings": {"select": "adversarial"}}),
    (
        "population",
        {f"{SETTINGS}.adversary_images": 7, f"{SMALL}.settings": {"select": "adversarial", "adversary": ADVERSARY}},
    ),
    ("population", {f"{SETTINGS}.training_adversary": ADVERSARY, f"{LARGE}.settings": {"adversarial_training": True}}),
    ("population", {f"{SETTINGS}.dampings": [1.0], f"{LARGE}.settings": {"angle_images": 5, "layer_angles": True}}),
    ("population", {f"{SETTINGS}.optimizer.momentum": 0.9, f"{LARGE}.settings": {"optimizer": {"kind": "adam"}}}),
    ("population", {f"{SETTINGS}.rules.sal.rule": {"rate_v": 2.0}}),
    ("population", {f"{PGD}.seeds": [0], f"{PGD}.backbones": ["large"], f"{PGD}.rules": ["pepita"]}),
    ("population", {"attacks.boundary.epsilons": [8]}),  # an L2 norm may be larger than 1
    ("retrieval", {"retrieval.loss": {"beta": 0.7, "variant": "h2q"}}),
    ("retrieval", {"retrieval.loss": {"beta": 0.5}}),  # the default, written down
    ("quick", {"input": {"resize": "crop", "backbones": {"lenet5": {"size": 32}}}}),
]


@pytest.mark.parametrize(("whole", "changes"), COMMON)
def test_what_has_an_effect_somewhere_is_accepted(whole: str, changes: dict[str, Any], tmp_path: Path) -> None:
    assert load(tmp_path, changed(whole, changes)) == ""


def test_what_is_inherited_may_be_more_than_is_used(tmp_path: Path) -> None:
    base = changed("quick", {"backbones": ["lenet5", "small_cnn"], "input": {"backbones": {"small_cnn": {"size": 28}}}})
    base["figures"] = {}  # most show one backbone
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base), encoding="utf-8")
    assert load(tmp_path, {"extends": "base", "backbones": ["lenet5"]}) == ""
    own = {"extends": "base", "backbones": ["lenet5"], "input": {"backbones": {"small_cnn": {"size": 14}}}}
    assert load(tmp_path, own).startswith("input.backbones.small_cnn has no effect")


def test_a_key_counts_as_set_if_it_is_not_the_default() -> None:
    plain = {"hidden": [4], "epochs": 1, "batch_size": 2}
    settings = parse(PopulationSettings, plain | {"optimizer": {"kind": "adam", "momentum": 0.0}}, "settings")
    assert idle_keys(settings) == {}
    settings = parse(PopulationSettings, plain | {"biases": False, "rule": {"last_hidden_bias": True}}, "settings")
    assert idle_keys(settings) == {"rule.last_hidden_bias": "with biases: false"}


@pytest.mark.parametrize("kind", ["attack", "hash_attack", "table", "figure", "update_rule"])
def test_what_settings_call_idle_are_keys_of_theirs(kind: str) -> None:
    for name in plugins.names(kind):
        model = plugins.settings_class(kind, name)
        if any(field.is_required() for field in model.model_fields.values()):
            continue
        try:
            settings = model()
        except ValueError:  # it wants something that has no default
            continue
        assert {path for path, _ in settings.without_effect()} <= set(model.model_fields)
