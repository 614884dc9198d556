"""What an experiment may say of retrieval, and what is made of it."""

from pathlib import Path

import pytest
import yaml

from creditflow.core.errors import UserError
from creditflow.workflow.loading import load_experiment, load_experiments
from creditflow.workflow.outputs import all_files, record_paths
from creditflow.workflow.sources import source_files
from helpers import ROOT

FASHION = (ROOT / "config/experiments/retrieval_fashion.yaml").read_text(encoding="utf-8")

#: The attacks of the shipped audit, and how the message about a missing kind begins.
ATTACKS = "attacks: [hag, sdha, hamming_pgd, hag_100, sdha_100, mainstay_pgd]"
LACKS = "audit.attacks: the worst case lacks an attack that leads away from"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "kind: per_class",
            "kind: per_clas",
            "retrieval.protocols.fashion_mnist.kind must be 'per_class', 'random' or 'lists', not 'per_clas'",
        ),
        ("kind: per_class", "kind: lists", "retrieval.protocols.fashion_mnist: lists draw nothing; take query away"),
        (", train: 500", "", "retrieval.protocols.fashion_mnist: say how many images to draw: query and train"),
        ("bits: 32", "bits: 20", "retrieval.bits: no margin is known for codes of 20 bits"),
        ("bits: 32", "bits: 0", "retrieval.bits"),
        (
            "fashion_mnist: {kind",
            "fashion_0_4: {kind",
            "retrieval.protocols: 'fashion_0_4' is not under `finetune.datasets`",
        ),
        ("top: 5000", "top: 5000\n  tops: {cifar10: 1}", "retrieval.tops: 'cifar10' is not under `finetune.datasets`"),
        ("  sdha:", "  pgd:", "attacks: unknown hash attack 'pgd'; choose from: hag, "),
        (ATTACKS, "attacks: [hag, sdha_100]", f"{LACKS} the code of the query's classes (mainstay_pgd); add one"),
        (ATTACKS, "attacks: [mainstay_pgd]\n  margin: 3", "audit.claim: 'hag' is not under `audit.attacks`"),
        (ATTACKS, "attacks: [hag, mainstay]", "audit.attacks: 'mainstay' is not under `attacks`; did you mean 'main"),
        (
            "epsilons: [0.05, 0.1, 0.3]\n  attacks",
            "epsilons: [0.2]\n  attacks",
            "audit.attacks: hag has no epsilon 0.2; it",
        ),
        (
            "seeds: [0, 1, 2, 3, 4]",
            "seeds: [0]",
            "audit: one seed says nothing about another training; give at least two",
        ),
        ("  claim: hag", "  claim: hag\n  margin: 51", "audit.margin must be at most 50, not 51"),
        (
            "  claim: hag",
            "  claim: hag\n  reference: matched",
            "audit.reference: retrieval has no networks that are matched",
        ),
        (
            "finetune:\n",
            "finetune:\n  matched: [usf]\n",
            "finetune.matched: it matches accuracies, which retrieval has",
        ),
        (
            "gradients: [exact, feedback]",
            "gradients: [feedback]",
            "audit.attacks: none uses the exact gradient, without",
        ),
        (
            "tables:",
            "why: {gradients: [exact], epsilon: 0.1, images: 9, batch_size: 9}\ntables:",
            "why: it measures classifiers, and this experiment retrieves; take `why` away",
        ),
        ("variant: official", "variant: mine", "retrieval.loss.variant must be 'official' or 'h2q', not 'mine'"),
        ("beta: 0.5", "bta: 0.5", "retrieval.loss: unknown key 'bta'; did you mean 'beta'?"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in FASHION
    (tmp_path / "mine.yaml").write_text(FASHION.replace(old, new), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_experiment(tmp_path, "mine")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_every_model_is_encoded_searched_and_attacked() -> None:
    paper = load_experiments(ROOT / "config/experiments")["retrieval"]
    records = list(map(str, record_paths(paper, Path("results"))))
    models = 4 * 3 * 4 * 3
    assert sum("/retrieve/" in path for path in records) == models
    # Three attacks, not on NUS-WIDE, for which the paper shows none; through two gradients, but for BP through one.
    assert sum("/attack_retrieval/" in path for path in records) == models * 3 // 4 * 3 * 7 // 4
    codes = [path for path in all_files(paper, Path("results")) if "/codes/" in str(path)]
    assert len(codes) == models
    assert paper.retrieval("imagenet100") == paper.retrieval("nus_wide") | {"top": 1000}
    assert paper.training("imagenet100")["epochs"] == 10


def test_pictures_are_of_one_models_records(tmp_path: Path) -> None:
    def found(settings: dict[str, object]) -> list[str]:
        keys = yaml.safe_load(FASHION) | {"figures": {"retrieved": settings}}
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
        experiment = load_experiments(tmp_path)["mine"]
        return list(map(str, source_files(experiment, Path("results"), "figure", "retrieved")))

    start = "results/mine/attack_retrieval/fashion_mnist/lenet5"
    assert (
        found({})
        == found({"rule": None})
        == [f"{start}/frsf/hag/{gradient}/seed0.json" for gradient in ("exact", "feedback")]
    )
    assert found({"rule": "bp", "attack": "sdha"})[0] == f"{start}/bp/sdha/exact/seed0.json"
    with pytest.raises(UserError, match=r"figures\.retrieved\.rule: unknown rule 'fa'"):
        found({"rule": "fa"})
