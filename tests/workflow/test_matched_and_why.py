"""What an experiment may say of networks matched in accuracy and of why attacks fail, and what is made of it."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from creditflow.core.errors import UserError
from creditflow.workflow import outputs
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiment, load_experiments
from creditflow.workflow.wildcards import constraints
from helpers import ROOT

BASE = """
description: an experiment with matched networks and with measured gradients
datasets: {all_digits: {source: digits}}
backbones: [small_cnn]
rules: [bp, usf, fa]
seeds: [0, 1]
threads: 1
pretrain: {start: random}
finetune:
  datasets: [all_digits]
  settings: {epochs: 1, batch_size: 32, learning_rate: 2.0e-3}
  matched: [usf, fa]
gradients: [exact, feedback]
attacks:
  fgsm: {epsilons: [0.1], images: 9, batch_size: 9}
  cascade:
    gradients: [exact]
    epsilons: [0.1]
    images: 9
    batch_size: 9
    settings: {transfer: {}, apgd_scaled: {}, square: {}}
why: {gradients: [exact, feedback, "through:frsf"], rules: [bp, fa], seeds: [1], epsilon: 0.1, images: 9, batch_size: 9}
audit: {epsilons: [0.1], attacks: [fgsm, cascade], claim: fgsm, reference: matched}
tables: {}
figures: {why: {}}
"""

POPULATION = {
    "backbones": None,
    "pretrain": None,
    "finetune": None,
    "rules": ["bp", "pepita"],
    "gradients": ["exact"],
    "population": {
        "datasets": ["all_digits"],
        "settings": {"hidden": [30], "epochs": 6, "batch_size": 32, "validation_images": 100},
        "variants": {"natural": {"learning_rates": {"all_digits": {"bp": [0.1], "pepita": [0.1]}}}},
    },
}


def load(folder: Path, **changes: Any) -> Experiment:
    """Loads the experiment with values at dotted paths replaced; None takes a key away."""
    keys: dict[str, Any] = yaml.safe_load(BASE)
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = keys
        for part in parents:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    (folder / "mine.yaml").write_text(yaml.safe_dump(keys, sort_keys=False), encoding="utf-8")
    return load_experiment(folder, "mine")


def test_matched_networks_are_trained_measured_and_attacked(tmp_path: Path) -> None:
    experiment = load(tmp_path)
    results = Path("results")
    trained = {chain[2] for chain in experiment.chains()}
    assert trained == {"bp", "usf", "fa", "bp_matched_usf", "bp_matched_fa"}
    chain = ("all_digits", "small_cnn", "bp_matched_fa", 1)
    stops_at = outputs.matched_record(experiment, results, chain)
    assert str(stops_at) == "results/mine/evaluate/all_digits/small_cnn/fa/seed1.json"
    assert outputs.matched_record(experiment, results, (*chain[:2], "fa", 1)) is None
    # Backpropagation trains it, so that its feedback is its exact gradient, and its twin is the network of its start.
    conditions = list(experiment.conditions(*chain[:1], *chain[2:]))
    assert conditions == [("fgsm", "exact"), ("cascade", "exact")]
    assert experiment.surrogates(chain, "cascade") == {
        "twin": (*chain[:2], "bp", 1),
        "other_seed": (*chain[:2], "bp", 0),
    }
    records = set(map(str, outputs.record_paths(experiment, results)))
    assert "results/mine/evaluate/all_digits/small_cnn/bp_matched_fa/seed1.json" in records
    assert "results/mine/attack/all_digits/small_cnn/bp_matched_fa/cascade/exact/seed1.json" in records


def test_a_network_of_which_only_the_head_is_trained_is_measured_and_attacked(tmp_path: Path) -> None:
    experiment = load(tmp_path, **{"finetune.head_only": True})
    chain = ("all_digits", "small_cnn", "bp_head_only", 1)
    assert chain in set(experiment.chains())
    assert outputs.matched_record(experiment, Path("results"), chain) is None
    assert list(experiment.conditions(*chain[:1], *chain[2:])) == [("fgsm", "exact"), ("cascade", "exact")]
    assert experiment.surrogates(chain, "cascade")["twin"] == (*chain[:2], "bp", 1)
    # Backpropagation itself is attacked from a rule's network, and not from a control's.
    assert experiment.surrogates((*chain[:2], "bp", 1), "cascade")["twin"][2] == "usf"
    assert re.fullmatch(constraints({"mine": experiment})["rule"], "bp_head_only")


def test_gradients_are_measured_where_the_experiment_says_so(tmp_path: Path) -> None:
    records = [str(path) for path in outputs.record_paths(load(tmp_path), Path("results"))]
    measured = {path.removeprefix("results/mine/why/all_digits/small_cnn/") for path in records if "/why/" in path}
    assert measured == {
        *(f"bp/{gradient}/seed1.json" for gradient in ("exact", "through-frsf")),
        *(f"fa/{gradient}/seed1.json" for gradient in ("exact", "feedback", "through-frsf")),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune.matched": ["usf", "fo"]}, "finetune.matched: 'fo' is not under `rules`; choose from: usf, fa"),
        ({"finetune.matched": ["usf", "dfa"]}, "finetune.matched: 'dfa' is not under `rules`"),
        ({"finetune.matched": ["bp"]}, "finetune.matched: bp itself is what is matched to other rules; take it away"),
        ({"finetune.matched": ["usf", "usf"]}, "finetune.matched: 'usf' stands twice; take one away"),
        ({"finetune.matched": ["usf"]}, "audit.reference: fa has no matched network; add it to `finetune.matched`"),
        ({"finetune.matched": None}, "audit.reference: usf has no matched network; add it to `finetune.matched`"),
        ({"attacks.cascade.rules": ["bp", "usf", "fa"]}, "audit.attacks: cascade does not attack every rule, so that"),
        ({"attacks.cascade.rules": ["bp_matched_dfa"]}, "attacks.cascade.rules: 'bp_matched_dfa' is not under `rules`"),
        ({"finetune.matched": None, "audit.reference": "bp"}, None),
        (
            POPULATION | {"why": None},
            "audit.reference: a population has no networks that are matched in accuracy; say bp",
        ),
        (
            {key: value for key, value in POPULATION.items() if key != "finetune"},
            "a population is trained from a random start, for classification; take `finetune` away",
        ),
        ({"why.gradients": ["feedback"]}, "why.gradients: the others are compared with the exact gradient; add exact"),
        ({"why.gradients": ["exact", "feedbak"]}, "why.gradients.1: unknown gradient 'feedbak'; did you mean"),
        (
            {"why.gradients": ["exact", "through:frfs"]},
            "why.gradients: through:frfs: unknown rule 'frfs'; did you mean",
        ),
        (
            {"why.gradients": ["exact", "through:bp"]},
            "why.gradients: through:bp: the feedback of bp is the exact gradi",
        ),
        ({"why.gradients": ["exact", "through:pepita"]}, "why.gradients: through:pepita: 'pepita' is an update rule"),
        ({"why.rules": ["dfa"]}, "why.rules: 'dfa' is not under `rules`"),
        ({"why.seeds": [2]}, "why.seeds: 2 is not under `seeds`"),
        ({"why.images": 0}, "why.images must be at least 1, not 0"),
        ({"why.step": 3}, "why: unknown key 'step'; did you mean 'steps'?"),
        (
            POPULATION | {"input": {"upsample": 16}},
            "input.upsample: a network of the project's backbones enlarges images; a population takes them as they are",
        ),
        (
            POPULATION | {"audit": None, "why.rules": None},
            "why.gradients: update rules train without feedback weights that an attacker could use; take feedback away",
        ),
    ],
)
def test_start_checks(changes: dict[str, Any], message: str | None, tmp_path: Path) -> None:
    if message is None:
        load(tmp_path, **changes)
        return
    with pytest.raises(UserError) as caught:
        load(tmp_path, **changes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_shipped_experiment_matches_every_rule() -> None:
    lenet = load_experiments(ROOT / "config/experiments")["lenet_fashion"]
    assert lenet.keys["audit"]["reference"] == "matched"
    assert lenet.keys["finetune"]["matched"] == [rule for rule in lenet.keys["rules"] if rule != "bp"]
