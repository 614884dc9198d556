"""Whose gradient an attacker uses, from an experiment's words to the paths of its records and back."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.gradients import SURROGATES, Gradient, folder_of, of_folder, parse_gradient
from creditflow.workflow import layout, outputs
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiment
from creditflow.workflow.wildcards import constraints

BASE = """
description: an experiment that is sound
datasets:
  low: {source: digits, classes: [0, 1, 2, 3, 4]}
  high: {source: digits, classes: [5, 6, 7, 8, 9]}
backbones: [small_cnn]
rules: [bp, usf, frsf]
seeds: [0, 3, 5]
threads: 1
pretrain: {start: random}
finetune:
  datasets: [low, high]
  settings: {epochs: 1, batch_size: 32, learning_rate: 2.0e-3, head_learning_rate: 2.0e-2}
gradients: [exact, feedback, "through:frsf", "through:frsf:2", "through:usf"]
attacks:
  pgd:
    epsilons: [0.05, 0.1]
    images: 100
    batch_size: 50
    settings: {steps: 20}
    keep: 4
    for_gradients:
      through: {epsilons: [0.1], settings: {steps: 5}}
      "through:frsf:2": {images: 30, settings: {random_start: true}}
  cascade:
    gradients: [exact, "through:frsf"]
    epsilons: [0.1]
    images: 100
    batch_size: 50
    settings: {transfer: {}, apgd_scaled: {}, square: {queries: 100}}
    for_gradients: {through: {settings: {transfer: null, square: null}}}
  square: {epsilons: [0.1], images: 100, batch_size: 50}
  transfer: {epsilons: [0.1], images: 100, batch_size: 50, rules: [bp, usf], datasets: [high]}
audit: {epsilons: [0.1], attacks: [pgd, cascade], claim: pgd, margin: 3, datasets: [high]}
tables: {}
figures: {}
"""

POPULATION = """
description: a population that is sound
datasets: {all_digits: {source: digits}}
rules: [bp, pepita, dfa_targets]
seeds: [0, 1]
threads: 1
population:
  datasets: [all_digits]
  settings: {hidden: [30], epochs: 6, batch_size: 32, validation_images: 100}
  variants:
    natural:
      rule_seeds: {pepita: [1]}
      learning_rates: {all_digits: {bp: [0.1], pepita: [0.1], dfa_targets: [0.1]}}
gradients: [exact, "through:frsf"]
attacks:
  transfer: {epsilons: [0.1], images: 100, batch_size: 50}
  fgsm: {epsilons: [0.1], images: 100, batch_size: 50}
tables: {}
figures: {}
"""


def load(folder: Path, keys: Any) -> Experiment:
    (folder / "mine.yaml").write_text(keys if isinstance(keys, str) else yaml.safe_dump(keys), encoding="utf-8")
    return load_experiment(folder, "mine")


def changed(text: str, *changes: tuple[str, Any]) -> dict[str, Any]:
    """An experiment with keys at dotted paths replaced; None takes a key away."""
    keys: dict[str, Any] = yaml.safe_load(text)
    for path, value in changes:
        *parents, last = path.split(".")
        place = keys
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return keys


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    return load(tmp_path_factory.mktemp("base"), BASE)


gradients = st.one_of(
    st.sampled_from([Gradient("exact"), Gradient("feedback"), Gradient("none")]),
    st.sampled_from([Gradient("surrogate", surrogate=name) for name in SURROGATES]),
    st.builds(Gradient, st.just("through"), st.sampled_from(plugins.names("rule")), st.integers(1, 999_999)),
)


@given(gradients)
def test_a_gradient_is_read_as_it_is_spelt_and_its_folder_leads_back(gradient: Gradient) -> None:
    assert parse_gradient(str(gradient)) == gradient
    folder = folder_of(str(gradient))
    assert of_folder(folder) == str(gradient)
    assert re.fullmatch(constraints({})["gradient"], folder) and "/" not in folder
    path = layout.ATTACK.path(
        Path("results"), experiment="e", dataset="d", backbone="b", rule="bp", attack="pgd", gradient=folder, seed=3
    )
    keys = layout.record_keys(path)
    assert keys is not None and keys["gradient"] == str(gradient)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exakt", "unknown gradient 'exakt'; did you mean 'exact'"),
        ("through:", "unknown gradient 'through:'; did you mean 'through:<rule>'"),
        ("through:frsf:0", "unknown gradient"),
        ("through:frsf:02", "unknown gradient"),
        ("through:frsf:x", "unknown gradient"),
        ("through:frsf:2:3", "unknown gradient"),
        ("through-frsf", "unknown gradient"),
        ("through:../up", "unknown gradient"),
        ("through:frsf\n", "unknown gradient"),
        ("through:frsf:1", "the first draw, which has no number: write 'through:frsf'"),
        ("surrogate:friend", "unknown gradient 'surrogate:friend'"),
        ("", "unknown gradient ''"),
    ],
)
def test_what_is_no_gradient(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        parse_gradient(text)


def test_backpropagation_is_not_attacked_through_its_feedback(base: Experiment) -> None:
    through = ["through:frsf", "through:frsf:2", "through:usf"]
    of_pgd = {
        rule: [gradient for attack, gradient in base.conditions("high", rule, 0) if attack == "pgd"]
        for rule in ("bp", "frsf")
    }
    assert of_pgd == {"bp": ["exact", *through], "frsf": ["exact", "feedback", *through]}
    of_bp = list(base.conditions("high", "bp", 0))
    assert [gradient for attack, gradient in of_bp if attack == "cascade"] == ["exact", "through:frsf"]
    assert [gradient for attack, gradient in of_bp if attack == "square"] == ["none"]
    assert [gradient for attack, gradient in of_bp if attack == "transfer"] == [f"surrogate:{x}" for x in SURROGATES]
    assert "transfer" not in dict(base.conditions("low", "bp", 0))


def test_every_condition_has_a_record_of_its_own_whose_path_tells_it(base: Experiment) -> None:
    paths = outputs.record_paths(base, Path("results"))
    keys = [layout.record_keys(path) or {} for path in paths]
    told = {(k["dataset"], k["rule"], k["seed"], k["attack"], k["gradient"]) for k in keys if k["attack"] != "clean"}
    expected = {
        (dataset, rule, seed, *condition)
        for dataset, _, rule, seed in base.chains()
        for condition in base.conditions(dataset, rule, seed)
    }
    assert told == expected and len(paths) == len(set(paths)) == len(expected) + len(list(base.chains()))
    assert Path("results/mine/attack/high/small_cnn/bp/pgd/through-frsf-2/seed3.json") in paths
    pattern = constraints({"mine": base})["gradient"]
    assert all(re.fullmatch(pattern, path.parent.name) for path in paths if path.parts[2] == "attack")


def test_what_differs_for_some_gradients_is_merged_over_the_rest(base: Experiment) -> None:
    exact = {"epsilons": [0.05, 0.1], "images": 100, "batch_size": 50, "settings": {"steps": 20}, "keep": 4}
    assert base.attack("pgd", "exact") == base.attack("pgd", "feedback") == exact
    usf = exact | {"epsilons": [0.1], "settings": {"steps": 5}}
    assert base.attack("pgd", "through:usf") == usf
    assert base.attack("pgd", "through:frsf:2") == usf | {"images": 30, "settings": {"steps": 5, "random_start": True}}
    assert base.attack("cascade", "through:frsf")["settings"] == {"apgd_scaled": {}}


def test_every_network_has_a_twin_and_a_bp_model_of_another_seed(base: Experiment) -> None:
    def surrogates(rule: str, seed: int, attack: str = "transfer") -> dict[str, tuple[str, int]]:
        models = base.surrogates(("high", "small_cnn", rule, seed), attack)
        return {name: (chain[2], chain[3]) for name, chain in models.items()}

    assert surrogates("usf", 0) == {"twin": ("bp", 0), "other_seed": ("bp", 3)}
    assert surrogates("frsf", 5) == {"twin": ("bp", 5), "other_seed": ("bp", 0)}
    assert surrogates("bp", 3) == {"twin": ("frsf", 3), "other_seed": ("bp", 5)}  # frSF stands after uSF
    chain = ("high", "small_cnn", "bp", 0)
    needed = {
        condition: set(outputs.surrogates(base, chain, *condition)) for condition in base.conditions("high", "bp", 0)
    }
    assert needed[("cascade", "exact")] == set(SURROGATES) and needed[("cascade", "through:frsf")] == set()
    assert needed[("transfer", "surrogate:twin")] == {"twin"}
    assert needed[("transfer", "surrogate:other_seed")] == {"other_seed"}
    assert needed[("square", "none")] == needed[("pgd", "exact")] == set()


def test_the_twin_of_backpropagation_is_of_a_rule_that_has_the_seed(tmp_path: Path) -> None:
    experiment = load(tmp_path, POPULATION)
    twins = [experiment.surrogates(("all_digits", "natural", "bp", seed), "transfer")["twin"][2] for seed in (0, 1)]
    assert twins == ["dfa_targets", "pepita"]
    assert ("fgsm", "through:frsf") in experiment.conditions("all_digits", "pepita", 1)


def test_an_audits_attacks_show_whether_they_converged_through_the_exact_gradient(base: Experiment) -> None:
    assert outputs.checks_convergence(base, "cascade", "exact")
    for attack, gradient in (("cascade", "through:frsf"), ("pgd", "exact"), ("transfer", "surrogate:twin")):
        assert not outputs.checks_convergence(base, attack, gradient)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("gradients", ["exact", "feedbak"], "gradients.1: unknown gradient 'feedbak'; did you mean 'feedback'"),
        ("gradients", ["exact", "none"], "gradients.1: 'none' is not chosen: attacks that use no gradient"),
        ("gradients", ["surrogate:twin"], "gradients.0: 'surrogate:twin' is not chosen"),
        ("gradients", ["exact", "through:frfs"], "gradients: through:frfs: unknown rule 'frfs'; did you mean 'frsf'"),
        ("gradients", ["exact", "through:pepita"], "gradients: through:pepita: 'pepita' is an update rule, which"),
        ("gradients", ["exact", "through:bp"], "gradients: through:bp: the feedback of bp is the exact gradient"),
        ("attacks.pgd.gradients", ["through:fa"], "attacks.pgd.gradients: 'through:fa' is not under `gradients`"),
        ("attacks.pgd.for_gradients", {"through:fa": {}}, "for_gradients: the attack does not use 'through:fa'"),
        ("attacks.pgd.for_gradients", {"throug": {}}, "attacks.pgd.for_gradients.throug: unknown gradient 'throug'"),
        ("attacks.square.for_gradients", {"exact": {}}, "the attack does not use 'exact'; it uses no gradient"),
        ("attacks.pgd.for_gradients", {"exact": {"keep": 3}}, "for_gradients.exact: unknown key 'keep'"),
        ("attacks.pgd.for_gradients", {"through": {"epsilons": [2]}}, "for_gradients.through.epsilons: pixels lie in"),
        (
            "attacks.pgd.for_gradients",
            {"through": {"settings": {"step": 3}}},
            "attacks.pgd.for_gradients.through: settings: unknown key 'step'; did you mean 'steps'",
        ),
        ("attacks.pgd.for_gradients", {"feedback": {"epsilons": [0.05]}}, "audit.attacks: pgd has no epsilon 0.1"),
        ("attacks.pgd.keep", 65, "attacks.pgd.keep must be at most 64, not 65"),
        ("attacks.square.images", 3, None),
        ("attacks.pgd.keep", 31, "attacks.pgd.keep: 31 images are kept, but only 30 are attacked"),
        ("attacks.pgd.twin", "usf", "attacks.pgd.twin has no effect: this attack transfers no images"),
        ("attacks.transfer.twin", "fa", "attacks.transfer.twin: 'fa' is not under `rules`"),
        ("attacks.transfer.twin", "bp", "attacks.transfer.twin: 'bp' is not under `rules`"),
        ("attacks.transfer.twin", "usf", None),
        ("rules", ["usf", "frsf"], "attacks.cascade: transfers from the model that `bp` trained; add `bp` to `rules`"),
        ("rules", ["bp"], "attacks.cascade: transfers to bp from another rule's model, but no other rule has a model"),
        (
            "seeds",
            [3],
            "attacks.cascade: transfers from `bp` of another seed, but small_cnn has one seed; add a second",
        ),
        ("audit.margin", 51, "audit.margin must be at most 50, not 51"),
        ("audit.margin", -1, "audit.margin must be at least 0, not -1"),
        (
            "attacks.cascade.settings",
            {"aquare": {}},
            "attacks.cascade.settings: unknown key 'aquare'; did you mean 'sq",
        ),
        ("audit.margin", 0, None),
        ("audit.datasets", ["lo"], "audit.datasets: 'lo' is not under `datasets`; did you mean 'low'"),
        ("audit.reference", "frsf", "audit.reference must be 'bp' or 'matched', not 'frsf'"),
        ("audit.claim", "square", "audit.claim: 'square' is not under `audit.attacks`"),
        ("audit.attacks", ["pgd", "apgd_ce", "cascade"], "audit.attacks: 'apgd_ce' is not under `attacks`"),
        ("audit.attacks", ["pgd", "square"], "audit.attacks: the worst case lacks an attack that the scale of"),
        ("audit.attacks", ["pgd"], "audit.attacks: the worst case lacks an attack that the scale of the logits"),
        ("audit.epsilons", [0.1, 0.2], "audit.attacks: pgd has no epsilon 0.2"),
        ("audit.epsilons", [0.05], "audit.attacks: cascade has no epsilon 0.05; it has [0.1]"),
        ("attacks.cascade.settings", {"apgd_dlr": {}, "square": {}}, "lacks an attack that transfers images"),
        ("attacks.cascade.settings", {"apgd_dlr": {}, "transfer": {}}, "lacks an attack without gradients"),
        ("attacks.cascade.settings", {"apgd_ce": {}, "transfer": {}, "square": {}}, "lacks an attack that the scale"),
        ("attacks.cascade.settings", {}, "attacks.cascade.settings: name at least one stage"),
        ("attacks.cascade.gradients", ["through:frsf"], "audit.attacks: the worst case lacks an attack that the scale"),
        ("attacks.pgd.datasets", ["low"], "audit.attacks: pgd does not attack high, which is under `audit.datasets`"),
        ("attacks.pgd.datasets", ["high"], None),
        ("attacks.cascade.datasets", ["low"], "audit.attacks: cascade and pgd have different `datasets`"),
    ],
)
def test_start_checks(path: str, value: Any, message: str | None, tmp_path: Path) -> None:
    keys = changed(BASE, (path, value))
    if path == "attacks.cascade.settings":
        del keys["attacks"]["cascade"]["for_gradients"]
        keys["attacks"]["cascade"]["gradients"] = ["exact"]
    if path == "attacks.cascade.gradients":
        keys["attacks"]["cascade"]["for_gradients"] = {}
    if path in ("rules", "seeds"):
        del keys["attacks"]["transfer"]
    if message is None:
        load(tmp_path, keys)
        return
    with pytest.raises(UserError) as caught:
        load(tmp_path, keys)
    assert message in str(caught.value) and str(caught.value).startswith(f"{tmp_path}/mine.yaml: ")
    assert "\n" not in str(caught.value)


def test_one_seed_is_too_few_for_an_audit(tmp_path: Path) -> None:
    keys = changed(
        BASE,
        ("seeds", [0]),
        ("attacks.transfer", None),
        ("attacks.cascade.settings", {"apgd_scaled": {}, "square": {}}),
    )
    with pytest.raises(UserError, match="audit: one seed says nothing about another training; give at"):
        load(tmp_path, keys)
    del keys["audit"]
    keys["attacks"]["cascade"]["for_gradients"] = {}
    load(tmp_path, keys)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("gradients", ["exact", "feedback"], "update rules train without feedback weights that an attacker could use"),
        ("attacks.transfer.twin", "pepita", "transfers to bp from another rule's model, but pepita has no model of se"),
        ("attacks.transfer.twin", "dfa_targets", None),
        ("population.variants.natural.seeds", [1], "attacks.transfer: transfers from `bp` of another seed"),
        (
            "population.variants.natural.learning_rates",
            {"all_digits": {"pepita": [0.1], "dfa_targets": [0.1]}},
            "attacks.transfer: transfers from the model that `bp` trained, which natural has no learning rates for",
        ),
    ],
)
def test_start_checks_of_populations(path: str, value: Any, message: str | None, tmp_path: Path) -> None:
    keys = changed(POPULATION, (path, value))
    if message is None:
        load(tmp_path, keys)
        return
    with pytest.raises(UserError) as caught:
        load(tmp_path, keys)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_attack_through_feedback_weights_leaves_nothing_of_backpropagation(tmp_path: Path) -> None:
    keys = changed(BASE, ("audit", None), ("gradients", ["exact", "feedback", "through:frsf"]))
    keys["attacks"]["pgd"] = {"epsilons": [0.1], "images": 9, "batch_size": 9, "gradients": ["feedback"]}
    assert not [attack for attack, _ in load(tmp_path, keys).conditions("high", "bp", 0) if attack == "pgd"]
    keys["attacks"]["pgd"]["rules"] = ["bp", "frsf"]
    with pytest.raises(UserError, match=r"attacks\.pgd: the feedback of bp is its exact gradient; say exact, or leave"):
        load(tmp_path, keys)
