"""Figures of smallest perturbations and of adversarial images, and the records that they are made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.reporting.figure import Figure
from creditflow.workflow.loading import load_experiment
from creditflow.workflow.sources import source_files
from helpers import ROOT
from outcome_records import NAMES, distance_records, frame, gallery_records


def drawn(name: str, records: list[Any], **values: Any) -> Any:
    figure: Figure = plugins.load("figure", name).FIGURE
    assert plugins.declared("figure", name, "source") == figure.source == "outcomes"
    return figure.draw(frame(records), parse(plugins.settings_class("figure", name), values, name))


def test_a_curve_is_the_share_of_images_beyond_each_size_by_the_best_of_the_complete_attacks() -> None:
    records = distance_records()
    linf, l2 = drawn("norms", records).axes
    assert linf.get_title() == "smallest found by FMN (L-inf)"  # FAB met two networks only
    assert l2.get_title() == "smallest found by FMN (L2) and DDN"
    for axes, attacks in ((linf, ["fmn_linf"]), (l2, ["fmn_l2", "ddn"])):
        for line, rule in zip(axes.lines, ("bp", "usf", "frsf", "fa"), strict=False):
            distances = {
                (each.keys.seed, each.keys.attack): each.outcomes["distance"]
                for each in records
                if each.keys.rule == rule and each.keys.attack in attacks
            }
            best = np.array([np.min([distances[seed, attack] for attack in attacks], axis=0) for seed in range(3)])
            sizes = line.get_xdata()
            assert sizes[0] == 0
            np.testing.assert_allclose(line.get_ydata(), [100 * (best > size).mean() for size in sizes])
    only_fab = drawn("norms", records, attacks=["fab"]).axes
    assert [axes.get_title() for axes in only_fab] == ["smallest found by FAB"]
    with pytest.raises(UserError, match="norms: no record of smallest perturbations"):
        drawn("norms", records, attacks=["ddn"], dataset="other")


def test_an_attack_without_distances_is_named() -> None:
    with pytest.raises(UserError, match="norms: pgd measures no distance; take it off the setting `attacks`"):
        drawn("norms", gallery_records(), attacks=["pgd"])


def test_the_gallery_shows_images_amplified_perturbations_and_answers() -> None:
    canvas = drawn("gallery", gallery_records(), images=4)
    assert len(canvas.axes) == 4 * 5
    headings = [axes.get_title() for axes in canvas.axes[:5]]
    assert headings == [
        "no attack",
        "exact gradient:\nperturbation x 5",
        "attacked image",
        "own feedback weights:\nperturbation x 5",
        "attacked image",
    ]
    # The exact gradient fools the network on all images at 0.1, the feedback weights on the first two of eight.
    for place in range(4):
        line = canvas.axes[5 * place : 5 * place + 5]
        right, wrong = NAMES[place], NAMES[(place + 2) % 5]
        assert [axes.get_xlabel() for axes in line] == [right, "", wrong, "", wrong if place < 2 else right]
        frames = [to_hex(axes.spines["left"].get_edgecolor()) for axes in line]
        assert frames[0] == "#009e73"
        assert frames[2] == "#d55e00"
    kept = gallery_records()[0].outcomes
    shown = canvas.axes[1].images[0].get_array()
    np.testing.assert_allclose(shown, 0.5 + 5 * (kept["kept_images"][1, 0, 0] - kept["kept_clean"][0, 0]), atol=1e-6)
    at_half = drawn("gallery", gallery_records(channels=3), epsilon=0.05)
    assert at_half.axes[1].get_title().endswith("perturbation x 10")


def test_attackers_who_met_other_images_are_not_shown_beside_these() -> None:
    records = gallery_records()
    feedback = next(record for record in records if record.keys.gradient == "feedback")
    feedback.outcomes["example"] = feedback.outcomes["example"] + 1
    headings = [axes.get_title() for axes in drawn("gallery", records, images=4).axes[:3]]
    assert headings[1:] == ["exact gradient:\nperturbation x 5", "attacked image"]
    assert len(drawn("gallery", records, images=4).axes) == 4 * 3


def test_a_gallery_without_images_says_what_to_set() -> None:
    records = gallery_records()
    for name in [name for name in records[0].outcomes if name.startswith("kept_")]:
        del records[0].outcomes[name]
    with pytest.raises(UserError, match="has no images; set `keep` of the attack and run it again"):
        drawn("gallery", records)
    with pytest.raises(UserError, match="gallery: no record of kept images for rule 'fa'; found: frsf"):
        drawn("gallery", gallery_records(), rule="fa")
    with pytest.raises(UserError, match=r"attacked frsf at the epsilons 0.05, 0.1, not at 0.2"):
        drawn("gallery", gallery_records(), epsilon=0.2)


EXPERIMENT = """
extends: quick
rules: [bp, frsf]
seeds: [0, 1]
gradients: [exact, feedback]
attacks: {pgd_eot: null, fmn_linf: null, fmn_l2: null, ddn: null, fab_l2: null, pgd: {keep: 8, for_gradients: null}}
audit: null
why: null
tables: {audit: null, audit_guards: null, gradient_matrix: {epsilon: 0.1}, transfer_matrix: {epsilon: 0.1}}
figures: {audit: null, why: null, gradient_matrix: {epsilon: 0.1, attack: fgsn}, gallery: {}, norms: {}}
"""


def test_outcomes_are_the_records_of_the_chosen_attacks_and_the_clean_ones(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_bytes((ROOT / "config/experiments/quick.yaml").read_bytes())
    (tmp_path / "mine.yaml").write_text(EXPERIMENT, encoding="utf-8")
    experiment = load_experiment(tmp_path, "mine")

    def shown(kind: str, name: str) -> set[str]:
        paths = source_files(experiment, Path("results"), kind, name)
        return {path.with_suffix("").as_posix().removeprefix("results/mine/") for path in paths}

    clean = {f"evaluate/fashion_5_9/lenet5/{rule}/seed{seed}" for rule in ("bp", "frsf") for seed in (0, 1)}
    pgd = {f"attack/fashion_5_9/lenet5/{rule}/pgd/exact/seed{seed}" for rule in ("bp", "frsf") for seed in (0, 1)}
    pgd |= {f"attack/fashion_5_9/lenet5/frsf/pgd/feedback/seed{seed}" for seed in (0, 1)}
    assert shown("table", "gradient_matrix") == clean | pgd
    assert shown("figure", "gallery") == clean | pgd
    transfer = {
        f"attack/fashion_5_9/lenet5/{rule}/transfer/surrogate-{surrogate}/seed{seed}"
        for rule in ("bp", "frsf")
        for surrogate in ("twin", "other_seed")
        for seed in (0, 1)
    }
    assert shown("table", "transfer_matrix") == clean | transfer
    assert {path.split("/")[4] for path in shown("figure", "norms") - clean} == {"fab"}
    figures = experiment.keys["figures"]
    figures["norms"] = {"backbone": "vgg16"}
    with pytest.raises(UserError, match=r"figures\.norms: fab attacks no such network; .* backbones: lenet5"):
        source_files(experiment, Path("results"), "figure", "norms")
    with pytest.raises(UserError, match=r"figures\.gradient_matrix: the experiment runs no attack that it can show"):
        source_files(experiment, Path("results"), "figure", "gradient_matrix")
    with pytest.raises(UserError, match=r"figures\.norms: it shows attacks on classifiers; this experiment retrieves"):
        retrieval = load_experiment(ROOT / "config/experiments", "retrieval")
        retrieval.keys["figures"]["norms"] = {}
        source_files(retrieval, Path("results"), "figure", "norms")
