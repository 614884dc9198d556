"""Published hyper-parameters as data; the target-propagation paper's tables and figure from records made by hand."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.settings import PopulationSettings
from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting.collection import long_form
from creditflow.reporting.figure import write_figure
from creditflow.reporting.published import read_published, shares
from creditflow.reporting.recorded_angles import best_damping
from creditflow.workflow import published_hyperparameters
from creditflow.workflow.experiments import Experiment
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.published_hyperparameters import with_published
from helpers import ROOT

PUBLISHED = read_published(ROOT / "config/published/target_propagation.csv")


@pytest.fixture(scope="module")
def experiments() -> dict[str, Experiment]:
    return load_experiments(ROOT / "config/experiments")


@pytest.mark.parametrize("name", ["target_propagation", "target_propagation_fashion"])
def test_every_cell_has_settings_that_its_rule_knows(experiments: dict[str, Experiment], name: str) -> None:
    experiment = experiments[name]
    cells = {chain[:3] for chain in experiment.chains()}
    for dataset, variant, rule in cells:
        settings = parse(PopulationSettings, experiment.population(dataset, variant, rule), "settings")
        own = parse(plugins.settings_class("update_rule", rule), settings.rule, rule)
        assert settings.epochs == 100 and settings.optimizer.kind == "adam"
        assert (settings.feedback_optimizer is None) == (rule in ("bp", "dfa_targets"))
        assert (settings.validation_images == 0) == variant.endswith("all_images")
        assert list(settings.convolutions) == ([32, 64] if variant == "cnn" else [])
        assert len(settings.optimizer.layer_rates) == (4 if variant == "cnn" else 0)
        assert settings.trained_layers == ((1,) if variant.startswith("frozen") else None)
        assert settings.pixel_mean == {"mnist": 0.1307, "fashion_mnist": 0.0, "cifar10": 0.5}[dataset]
        if rule == "ddtp_rhl":
            assert own.width == (2048 if dataset == "cifar10" else 1024)
    # Tables 1 and 2 have 8 methods on 4 tasks, but no DFA on Frozen-MNIST; Table 3 has 4.
    assert len(cells) == {"target_propagation": 66, "target_propagation_fashion": 8}[name]
    assert (
        len(list(experiment.chains())) == {"target_propagation": 66 * 10, "target_propagation_fashion": 7 * 3 + 1}[name]
    )


def test_the_rate_is_the_published_one_over_the_step_size(experiments: dict[str, Experiment]) -> None:
    experiment = experiments["target_propagation_fashion"]
    row = next(
        row
        for row in csv.DictReader((ROOT / "config/hyperparameters/target_propagation.csv").open(encoding="utf-8"))
        if (row["table"], row["dataset"], row["rule"]) == ("table1", "fashion_mnist", "dtp")
    )
    settings = experiment.population("fashion_mnist", "mlp_256x5", "dtp")
    assert settings["rule"] == {"step_size": float(row["step_size"]), "sigma": float(row["sigma"])}
    assert settings["feedback_optimizer"]["stability"] == float(row["feedback_stability"])
    rates = experiment.keys["population"]["variants"]["mlp_256x5"]["learning_rates"]["fashion_mnist"]
    assert rates["dtp"] == [float(row["learning_rate"]) / float(row["step_size"])]


@pytest.mark.parametrize(
    ("name", "variant", "table", "row", "methods"),
    [
        ("target_propagation_frozen", "frozen_mlp_256x5", "table1", "frozen_mnist", 7),
        ("target_propagation_fashion_losses", "mlp_256x5_all_images", "table2", "fashion_mnist", 7),
        ("target_propagation_fashion_cnn", "cnn", "table3", "cifar10", 4),
    ],
)
def test_the_papers_other_tables_take_their_own_rows_on_fashion_mnist(
    experiments: dict[str, Experiment], name: str, variant: str, table: str, row: str, methods: int
) -> None:
    experiment = experiments[name]
    with (ROOT / "config/hyperparameters/target_propagation.csv").open(encoding="utf-8") as file:
        rows = [each for each in csv.DictReader(file) if (each["table"], each["dataset"]) == (table, row)]
    published = {each["rule"]: each for each in rows if not each["variant"]}
    cells = {chain[:3] for chain in experiment.chains()}
    assert {cell[:2] for cell in cells} == {("fashion_mnist", variant)} and len(cells) == methods
    for _, _, rule in cells:
        settings = parse(PopulationSettings, experiment.population("fashion_mnist", variant, rule), "settings")
        (rate,) = experiment.keys["population"]["variants"][variant]["learning_rates"]["fashion_mnist"][rule]
        first = float(published[rule]["learning_rate"].split("|")[0])
        assert rate == first / float(published[rule]["step_size"])
        assert settings.optimizer.beta1 == float(published[rule]["beta1"])
        assert settings.trained_layers == ((1,) if variant.startswith("frozen") else None)
        assert (settings.select, settings.validation_images) == (
            ("last", 0) if table == "table2" else ("natural", 5000)
        )
        # The paper explains by angles why the methods differ where the first layer alone learns.
        assert (settings.angle_images, settings.layer_angles) == (
            (128, True) if variant.startswith("frozen") else (0, False)
        )
        assert len(settings.optimizer.layer_stabilities) == (4 if variant == "cnn" else 0)


CHOSEN = {"file": "few", "table": "t", "row": "d", "dataset": "mine"}
ROWS = {
    "table": "t",
    "dataset": "d",
    "rule": "dtp",
    "variant": "",
    "step_size": "0.5",
    "learning_rate": "0.01",
    "beta1": "0.9",
}
ROWS |= {
    "beta2": "0.99",
    "stability": "1e-8",
    "sigma": "0.1",
    "feedback_learning_rate": "0.02",
    "feedback_beta1": "0.8",
}
ROWS |= {"feedback_beta2": "0.7", "feedback_stability": "1e-7", "feedback_weight_decay": "0", "feedback_epochs": "6"}
ROWS |= {"extra_feedback_epochs": "0"}


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(published_hyperparameters, "FOLDER", tmp_path)

    def write(**changes: str) -> None:
        row = ROWS | changes
        (tmp_path / "few.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n", encoding="utf-8")

    write()
    return write


def test_what_the_variant_says_itself_comes_first(few: Any) -> None:
    own = {"datasets": {"mine": {"rules": {"dtp": {"feedback_epochs": 1, "rule": {"sigma": 0.3}}}}}}
    found = with_published(
        {"hyperparameters": [CHOSEN], "settings": own, "learning_rates": {"mine": {"dtp": [0.1]}}},
        ["bp", "dtp"],
        "here",
    )
    settings = found["settings"]["datasets"]["mine"]["rules"]["dtp"]
    assert settings["rule"] == {"step_size": 0.5, "sigma": 0.3} and settings["feedback_epochs"] == 1
    assert settings["optimizer"] == {"kind": "adam", "beta1": 0.9, "beta2": 0.99, "stability": 1e-8}
    assert "extra_feedback_epochs" not in settings
    assert found["learning_rates"] == {"mine": {"dtp": [0.1]}} and "hyperparameters" not in found
    assert with_published({"hyperparameters": [CHOSEN]}, ["dtp"], "here")["learning_rates"] == {"mine": {"dtp": [0.02]}}


@pytest.mark.parametrize(
    ("row", "chosen", "rules", "message"),
    [
        ({"sigma": ""}, {}, ["dtp"], "here: few.csv, t, d, dtp: sigma is missing; give it in the file"),
        ({"beta1": "much"}, {}, ["dtp"], "beta1 is 'much', no number"),
        ({"learning_rate": "nan"}, {}, ["dtp"], "learning_rate is 'nan', no number"),
        ({"learning_rate": "0.1|0.2"}, {}, ["dtp"], "2 learning rates, but 1 stabilities"),
        ({}, {"file": "fex"}, ["dtp"], "here.file: unknown hyper-parameters 'fex'; did you mean 'few'"),
        ({}, {"table": "tt"}, ["dtp"], "here.table: no row with table 'tt'; did you mean 't'"),
        ({}, {"row": "mnist"}, ["dtp"], "here.row: no row with dataset 'mnist'"),
        ({}, {"variant": "x"}, ["dtp"], "here.variant: no row with variant 'x'"),
        ({}, {}, ["bp"], "no row for any of the rules bp; there are dtp"),
    ],
)
def test_rows_that_are_not_whole_are_explained(
    few: Any, row: dict[str, str], chosen: dict[str, str], rules: list[str], message: str
) -> None:
    few(**row)
    with pytest.raises(UserError, match=message):
        with_published({"hyperparameters": [CHOSEN | chosen]}, rules, "here")


# --- tables and figure -------------------------------------------------------------------------------------------


def records() -> list[Record]:
    found = []
    for rule, error, loss in (("bp", 0.1074, 7e-5), ("dtp", 0.13, 4e-2)):
        for seed, shift in ((0, -0.001), (1, 0.001)):
            history = [Metric("loss", None, value, 60000, epoch) for epoch, value in ((1, 0.5), (2, loss))]
            angles = [
                Metric(f"angle_{to}", None, 60.0 + seed + epoch + 10 * wide + layer, 128, epoch)
                for layer in (1, 2)
                for wide, to in (
                    (0, f"bp_layer{layer}"),
                    (1, f"gnt_layer{layer}_damping0"),
                    (-1, f"gnt_layer{layer}_damping0.1"),
                )
                for epoch in (1, 2)
            ]
            for variant in ("mlp_256x5", "mlp_256x5_all_images"):
                keys = Keys("e", "classification", "fashion_mnist", variant, rule, seed, "clean", "none")
                metrics = (
                    Metric("accuracy", None, 1 - error - shift, 1000),
                    *history,
                    *(angles if variant == "mlp_256x5" else ()),
                )
                correct = np.arange(1000)[None] < 1000 * (1 - error - shift)
                found.append(
                    Record(Path("r.json"), keys, metrics, {"correct": correct, "example": np.arange(1000)}, {})
                )
    return found


FRAME = long_form(records())


def table(name: str, folder: Path, frames: tuple[pd.DataFrame, ...] = (FRAME, PUBLISHED)) -> tuple[pd.DataFrame, str]:
    made = plugins.load("table", name).TABLE
    made.write(
        frames, parse(plugins.settings_class("table", name), {}, name), plugins.docstring("table", name), folder / name
    )
    return pd.read_csv(folder / f"{name}.csv").set_index("rule"), (folder / f"{name}.md").read_text(encoding="utf-8")


def test_errors_stand_beside_the_published_ones(tmp_path: Path) -> None:
    rows, text = table("target_propagation_table1", tmp_path)
    assert set(rows.backbone) == {"mlp_256x5"}
    assert rows.value["bp"] == pytest.approx(0.1074) and rows.sd["bp"] == pytest.approx(0.001 * 2**0.5)
    assert rows.distance["dtp"] == pytest.approx((13 - 11.49) / 0.23)
    assert rows.inside.tolist() == [True, False]
    assert "10.74 ± 0.14" in text and "10.74 ± 0.16" in text and "1 of 2 within 3" in text


def test_networks_without_a_published_number_are_shown_if_they_are_asked_for(tmp_path: Path) -> None:
    made = plugins.load("table", "target_propagation_table1").TABLE
    settings_class = plugins.settings_class("table", "target_propagation_table1")
    chosen = parse(settings_class, {"unpublished": True}, "target_propagation_table1")
    rows = made.select(FRAME, PUBLISHED, chosen)
    assert set(rows.backbone) == {"mlp_256x5", "mlp_256x5_all_images"} and len(rows) == 4
    texts = made.show(rows, chosen)
    assert texts.Published.tolist() == ["10.74 ± 0.16", "11.49 ± 0.23", "-", "-"]
    assert texts["Within 3"].tolist() == ["yes", "no", "-", "-"]
    assert made.note(rows).endswith("1 of 2 within 3 published standard deviations.")
    elsewhere = made.select(FRAME, PUBLISHED[PUBLISHED.dataset != "fashion_mnist"], chosen)
    assert elsewhere.value.tolist() == rows.value.tolist()
    assert made.note(elsewhere) == "Ours: 2 seeds. The paper has no such numbers."


def test_losses_of_the_last_epoch_stand_beside_the_published_ones(tmp_path: Path) -> None:
    rows, text = table("target_propagation_table2", tmp_path)
    assert set(rows.backbone) == {"mlp_256x5_all_images"}
    assert rows.value.tolist() == pytest.approx([7e-5, 4e-2]) and rows.published["bp"] == pytest.approx(6.46e-5)
    assert rows.inside.tolist() == [True, True] and "6.46e-05 ± 2.50e-06" in text


def test_published_losses_are_no_percentages() -> None:
    assert len(shares(PUBLISHED)) == 35 and len(PUBLISHED) == 66
    row = PUBLISHED[
        (PUBLISHED.metric == "training_loss") & (PUBLISHED.rule == "dtpdrl") & (PUBLISHED.dataset == "cifar10")
    ].iloc[0]
    assert (row.value, row.spread) == (pytest.approx(2.13e-6), pytest.approx(0.83e-6)) and np.isnan(row.n)


def test_figure_4_has_every_rules_angle_and_the_damping_that_suits_it(tmp_path: Path) -> None:
    figure = plugins.load("figure", "target_propagation_figure4").FIGURE
    chosen = parse(plugins.settings_class("figure", "target_propagation_figure4"), {}, "figure")
    to_bp, to_gnt = figure.draw(FRAME, chosen).axes
    assert next(list(line.get_ydata()) for line in to_bp.get_lines()) == [63.5, 64.5]
    assert [list(line.get_ydata()) for line in to_gnt.get_lines()][:2] == [[53.5, 54.5]] * 2
    write_figure(figure, FRAME, chosen, tmp_path / "four")
    assert (tmp_path / "four.png").stat().st_size > 5000
    with pytest.raises(UserError, match="no angles of layer 7"):
        figure.draw(
            FRAME, parse(plugins.settings_class("figure", "target_propagation_figure4"), {"layer": 7}, "figure")
        )
    rows = pd.DataFrame({"to": ["gnt"] * 3, "damping": ["0", "1", "1"], "value": [5.0, 4.0, 7.0]})
    assert best_damping(rows) == "0"


def test_the_angles_of_figure_4_are_means_over_epochs_and_seeds(tmp_path: Path) -> None:
    rows, text = table("target_propagation_figure4", tmp_path, (FRAME,))
    second = rows[rows.layer == 2].loc["dtp"]
    assert [second[f"to_bp{end}"] for end in ("", "_low", "_high")] == [64, 63.5, 64.5]
    assert (second.to_gnt, second.damping, second.n_seeds, second.epochs) == (54, 0.1, 2, 2) and len(rows) == 4
    assert "64.0 (63.5 to 64.5)" in text and "54.0 (53.5 to 54.5)" in text


def test_the_shares_of_figure_2_are_means_over_seeds(tmp_path: Path) -> None:
    def one(rule: str, seed: int, share: float) -> Record:
        keys = Keys("e", "nullspace", "toy", "mlp_6_6_6_2", rule, seed, "none", "none")
        return Record(
            Path("r.json"),
            keys,
            (Metric("nullspace_ratio", None, share, 9), Metric("nullspace_ratio_deviation", None, 0.2, 9)),
            {},
            {},
        )

    toy = long_form([one("dtp", 0, 0.7), one("dtp", 1, 0.6), one("gnt", 0, 0.0)])
    rows, text = table("target_propagation_figure2", tmp_path, (toy,))
    assert rows.loc["dtp", ["value", "low", "high", "sd_over_steps"]].tolist() == pytest.approx([0.65, 0.6, 0.7, 0.2])
    assert rows.value["gnt"] == 0 and rows.n_seeds.to_dict() == {"dtp": 2, "gnt": 1}
    assert "0.650 (0.600 to 0.700)" in text
    with pytest.raises(UserError, match="no record for table"):
        table("target_propagation_figure2", tmp_path, (FRAME,))
