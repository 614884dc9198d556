"""Tables and figures of populations from records made by hand: they say what the records and the papers say."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting.collection import long_form, summarize
from creditflow.reporting.figure import write_figure
from creditflow.reporting.published import read_published
from helpers import ROOT

PUBLISHED = {
    name: read_published(ROOT / f"config/published/{name}.csv") for name in ("pepita", "sal", "target_propagation")
}
HISTORY = {"train_accuracy": 0.9, "validation_accuracy": 0.5, "test_accuracy": 0.4, "test_adversarial_accuracy": 0.2}
ACCURACY = {"clean": 0.9, "fgsm_mse": 0.4, "pgd_mse_code": 0.3, "pgd_mse": 0.2, "pgd": 0.1}


def record(variant: str, rule: str, seed: int, attack: str, level: float, more: tuple[Metric, ...] = ()) -> Record:
    keys = Keys(
        "e", "classification", "fashion_mnist", variant, rule, seed, attack, "none" if attack == "clean" else "exact"
    )
    epsilons = [None] if attack == "clean" else [0.1, 0.3]
    correct = np.arange(50)[None] < np.array(
        [[50 * level * (1 if epsilon in (None, 0.1) else 0.5)] for epsilon in epsilons]
    )
    name = "accuracy" if attack == "clean" else "robust_accuracy"
    metrics = [Metric(name, epsilon, float(row.mean()), 50) for epsilon, row in zip(epsilons, correct, strict=True)]
    content = {"settings": {"norm": "" if attack == "clean" else "linf"}}
    return Record(
        Path(f"{variant}{rule}{seed}{attack}.json"),
        keys,
        (*metrics, *more),
        {"correct": correct, "example": np.arange(50)},
        content,
    )


def records() -> list[Record]:
    found = []
    for variant in ("natural", "mlp_200"):
        for rule, factor in (("bp", 1.0), ("pepita", 0.8)) if variant == "natural" else (("bp", 1.0), ("sal", 0.9)):
            for seed in range(2):
                for attack, level in ACCURACY.items():
                    history = [
                        Metric(name, None, value + epoch / 100, 50, epoch)
                        for name, value in HISTORY.items()
                        for epoch in (1, 2, 3)
                    ]
                    own = (*history, Metric("chosen_epoch", None, 2 + seed, 1)) if attack == "clean" else ()
                    share = (Metric("zero_gradient_share", None, 0.25 + seed / 2, 50),) if attack == "pgd_mse" else ()
                    found.append(record(variant, rule, seed, attack, level * factor, (*own, *share)))
    return found


FRAMES = {"summary": summarize(records()), "records": long_form(records())}


def table(name: str, settings: dict[str, Any], folder: Path) -> tuple[pd.DataFrame, str]:
    """Writes a table and returns its rows and its Markdown."""
    made = plugins.load("table", name).TABLE
    frames = [PUBLISHED[made.published] if word == "published" else FRAMES[word] for word in made.source.split()]
    made.write(
        frames,
        parse(plugins.settings_class("table", name), settings, name),
        plugins.docstring("table", name),
        folder / name,
    )
    return pd.read_csv(folder / f"{name}.csv"), (folder / f"{name}.md").read_text(encoding="utf-8")


def test_pepitas_table_has_ours_and_the_papers_numbers(tmp_path: Path) -> None:
    rows, text = table("pepita_table1", {}, tmp_path)
    values = rows.set_index(["rule", "condition"]).value
    assert values["bp", "natural"] == pytest.approx(0.9)
    assert values["pepita", "PGD, code (0.1)"] == pytest.approx(0.24)
    assert values["bp", "PGD, paper (0.3)"] == pytest.approx(0.1)
    assert values["bp", "published natural"] == pytest.approx(0.9052)
    assert values["bp", "published PGD"] == pytest.approx(0.01961)
    assert ("pepita", "published natural") not in values  # our copy of the paper does not show it
    assert "90.5 (90.5 to 90.5)" in text and "2.0 (1.5 to 2.4)" in text
    assert set(rows.dataset) == {"fashion_mnist"}


def test_a_table_of_a_population_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="pepita_table3: no record of 'pgd_trained'; found: mlp_200, natural"):
        table("pepita_table3", {}, tmp_path)


def test_the_share_of_zero_gradients_is_the_records(tmp_path: Path) -> None:
    _, text = table("zero_gradients", {}, tmp_path)
    assert "50.0 (25.0 to 75.0)" in text


def test_sals_table_1_takes_the_chosen_epochs_training_accuracy(tmp_path: Path) -> None:
    rows, text = table("sal_table1", {"variant": "mlp_200"}, tmp_path)
    found = rows.set_index("rule")
    assert found.train["sal"] == pytest.approx((0.92 + 0.93) / 2)
    assert found.test["sal"] == pytest.approx(np.ceil(50 * 0.81) / 50)
    assert found.published["sal"] == pytest.approx(0.9723)
    assert set(found.nearer) == {"train"}
    assert "92.5 ± 0.71" in text and "97.2 ± 0.08" in text
    with pytest.raises(UserError, match="choose one variant of mlp_200, natural"):
        table("sal_table1", {}, tmp_path)


def test_sals_table_2_is_what_rules_declare(tmp_path: Path) -> None:
    rows, _ = table("sal_table2", {}, tmp_path)
    found = rows.set_index("rule")
    assert found.loc["sal"].tolist() == [1] * 8
    assert found.loc["bp"].tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    for rule in plugins.names("update_rule"):
        assert set(plugins.declared("update_rule", rule, "plastic")) <= set(
            plugins.declared("update_rule", rule, "connected")
        )


def draw(name: str, settings: dict[str, Any]) -> Any:
    figure = plugins.load("figure", name).FIGURE
    return figure, parse(plugins.settings_class("figure", name), settings, name)


@pytest.mark.parametrize(
    ("name", "settings", "n_lines"),
    [
        ("pepita_figure2b", {"variant": "natural"}, 4),
        ("sal_figure2", {"lines": {"identity": {"200": "mlp_200", "100": "mlp_200"}}}, 1),
        ("sal_figure4", {"lines": {"all": "mlp_200 sal", "BP": "mlp_200 bp"}}, 2),
    ],
)
def test_figures_draw_their_lines(name: str, settings: dict[str, Any], n_lines: int, tmp_path: Path) -> None:
    figure, chosen = draw(name, settings)
    frame = FRAMES[figure.source]
    (axes,) = figure.draw(frame, chosen).axes
    assert len(axes.lines) == n_lines
    write_figure(figure, frame, chosen, tmp_path / name)
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_figure_2a_puts_each_network_at_its_accuracies() -> None:
    rows = [
        {
            "dataset": "mnist",
            "backbone": variant,
            "rule": rule,
            "epsilon": 0.1,
            "clean": clean,
            "worst": worst,
            "claim": "pgd_mse exact",
        }
        | {"accuracy pgd_mse exact": 0.5, "n_images": 100, "n_seeds": 2}
        for variant, rule, clean, worst in (
            ("natural", "bp", 0.9, 0.1),
            ("natural", "pepita", 0.8, 0.2),
            ("pgd_trained", "bp", 0.7, 0.6),
        )
    ]
    figure, chosen = draw("pepita_figure2a", {})
    left, right = figure.draw(pd.DataFrame(rows), chosen).axes
    assert [collection.get_offsets().tolist() for collection in right.collections] == [[[90, 10], [70, 60]], [[80, 20]]]
    assert all(y == 50 for collection in left.collections for _, y in collection.get_offsets().tolist())
    with pytest.raises(UserError, match=r"the audit has no epsilon 0.3; it has \[0.1\]"):
        figure.draw(pd.DataFrame(rows), draw("pepita_figure2a", {"epsilon": 0.3})[1])


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("sal_figure2", {}, "give `lines` in the figure's settings"),
        ("sal_figure2", {"lines": {"tanh": {"100": "tanh_100"}}}, "no record of variant 'tanh_100'"),
        ("sal_figure4", {}, "give `lines` in the figure's settings"),
        ("sal_figure4", {"lines": {"W": "mlp_200 dfa"}}, "no record of 'mlp_200 dfa'"),
        ("pepita_figure2b", {}, "choose one variant of mlp_200, natural"),
    ],
)
def test_settings_that_name_nothing_are_explained(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        figure, chosen = draw(name, settings)
        figure.draw(FRAMES[figure.source], chosen)
