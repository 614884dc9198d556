"""Tables and figures of populations from records made by hand: they say what the records and the papers say."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
from creditflow.reporting.style import GREY
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
    assert set(found.place) == {"above both"}
    assert "92.5 ± 0.71" in text and "97.2 ± 0.08" in text
    with pytest.raises(UserError, match="choose one variant of mlp_200, natural"):
        table("sal_table1", {}, tmp_path)


def test_sals_table_1_says_which_rates_lie_on_the_edge_of_their_grid(tmp_path: Path) -> None:
    rows, text = table("sal_table1", {"variant": "mlp_200"}, tmp_path)
    assert rows.edge.isna().all() and text.count("| 0.05") == 0  # records of rates that nobody chose
    made = plugins.load("table", "sal_table1").TABLE
    chosen = parse(plugins.settings_class("table", "sal_table1"), {"variant": "mlp_200"}, "sal_table1")
    for lowest, highest, edge, words in (
        (0.01, 0.05, "highest", "0.05 (highest tried)"),
        (0.05, 0.1, "lowest", "0.05 (lowest tried)"),
        (0.01, 0.1, "", "0.05"),
    ):
        grid = {"learning_rate": 0.05, "lowest_rate": lowest, "highest_rate": highest}
        metrics = tuple(Metric(name, None, value, 1) for name, value in grid.items())
        kept = [replace(each, metrics=(*each.metrics, *metrics)) for each in records() if each.keys.attack == "clean"]
        selected = made.select(long_form(kept), PUBLISHED["sal"], chosen)
        assert set(selected.edge) == {edge} and set(selected.learning_rate) == {0.05}
        assert set(made.show(selected, chosen)["Learning rate"]) == {words}


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
    ],
)
def test_figures_draw_their_lines(name: str, settings: dict[str, Any], n_lines: int, tmp_path: Path) -> None:
    figure, chosen = draw(name, settings)
    frame = FRAMES[figure.source]
    (axes,) = figure.draw(frame, chosen).axes
    assert len(axes.lines) == n_lines
    write_figure(figure, frame, chosen, tmp_path / name)
    assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_sals_figure_4_shows_the_last_epochs_mean_its_spread_and_each_seed() -> None:
    figure, chosen = draw("sal_figure4", {"lines": {"all": "mlp_200 sal", "BP": "mlp_200 bp"}})
    (axes,) = figure.draw(FRAMES["records"], chosen).axes
    curves = FRAMES["records"].query("metric == 'validation_accuracy' and backbone == 'mlp_200'")
    last = curves[curves.epoch == curves.epoch.max()]
    for place, rule in enumerate(("sal", "bp")):
        values = 100 * last[last.rule == rule].value
        spread, seeds, mean = axes.lines[3 * place : 3 * place + 3]
        assert list(spread.get_xdata()) == [values.min(), values.max()] and set(spread.get_ydata()) == {place}
        assert list(seeds.get_xdata()) == list(values) and len(values) > 1
        assert list(mean.get_xdata()) == pytest.approx([values.mean()])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["All", "BP"]


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


def adversarially_trained(n: int = 3) -> pd.DataFrame:
    """An audit of `n` variants on which BP falls by 20 points and PEPITA by 1, and by 2 more in the worst case."""
    facts = {"dataset": "mnist", "epsilon": 0.1, "claim": "pgd_mse exact", "n_images": 100, "n_seeds": 2}
    rows = [
        facts | {"backbone": f"tradeoff_{i}", "rule": rule, "clean": 0.9 - i / 20, "fall": fall}
        for i in range(n)
        for rule, fall in (("bp", 0.2), ("pepita", 0.01))
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(
        **{"accuracy pgd_mse exact": frame.clean - frame.fall, "worst": frame.clean - frame.fall - 0.02}
    )


def test_figure_2a_shows_chosen_variants_by_their_labels() -> None:
    settings = {"variants": {0.1: "tradeoff_0", "Table 3": "tradeoff_2"}, "circled": "Table 3"}
    figure, chosen = draw("pepita_figure2a", settings)
    canvas = figure.draw(adversarially_trained(), chosen)
    for axes, falls in zip(canvas.axes, ((20, 1), (22, 3)), strict=True):
        texts = [text.get_text() for text in axes.texts]
        assert sorted(texts) == ["0.1", "0.1", "Table 3", "Table 3"]
        bp, pepita, circle = (np.round(dots.get_offsets(), 6).tolist() for dots in axes.collections)
        assert [len(bp), len(pepita), len(circle)] == [2, 2, 2] and circle == [bp[1], pepita[1]]
        for points, fall in zip((bp, pepita), falls, strict=True):
            assert all(clean - robust == pytest.approx(fall) for clean, robust in points)
    with pytest.raises(UserError, match="the audit has no variant 'tradeoff_7'; it has tradeoff_0, tradeoff_1, trade"):
        figure.draw(adversarially_trained(), draw("pepita_figure2a", {"variants": {"a": "tradeoff_7"}})[1])
    with pytest.raises(UserError, match="circled must be a label of `variants`, not 'Table 4'"):
        draw("pepita_figure2a", {"variants": {"Table 3": "tradeoff_2"}, "circled": "Table 4"})


def unstable(gaps: dict[tuple[float, int], list[float]]) -> pd.DataFrame:
    """A population of one variant: the median gap by epoch, for each learning rate and seed."""
    members = []
    for (rate, seed), values in gaps.items():
        history = [
            {"epoch": epoch, "loop_growth": 1 + gap / 100, "median_gap": gap}
            | {"zero_gradients_float32": float(gap > 52), "zero_gradients_float64": float(gap > 373)}
            for epoch, gap in enumerate(values, 1)
        ]
        saved = SimpleNamespace(content={"measured_images": {"median_gap": 500}})
        members.append({"learning_rate": rate, "seed": seed, "history": history, "saved": saved})
    return pd.DataFrame(members).assign(dataset="fashion_mnist", backbone="natural", rule="pepita")


def test_pepitas_instability_is_drawn_by_epoch_and_rate(tmp_path: Path) -> None:
    gaps = {(0.01, 0): [2.0, 3.0], (0.01, 1): [2.0, 60.0], (0.2, 0): [30.0, 400.0], (0.2, 1): [53.0, 374.0]}
    figure, chosen = draw("pepita_instability", {"variants": {"natural images": "natural"}})
    canvas = figure.draw(unstable(gaps | {(0.3, 0): [], (0.3, 1): [900.0]}), chosen)
    growth, gap, zero = canvas.axes
    lines = {tuple(line.get_ydata()) for line in gap.lines}
    assert {tuple(values) for values in gaps.values()} | {(900.0,), (52, 52), (373, 373)} == lines
    assert (1.3, 5.0) in {tuple(line.get_ydata()) for line in growth.lines}
    assert len(zero.lines) == 10 and {line.get_linestyle() for line in zero.lines} == {"-", "--"}
    assert max(max(line.get_ydata()) for line in zero.lines) == 100
    text = canvas.get_supxlabel()
    assert "500 test images, 2 seeds" in text
    # 0.01 reaches it in one seed alone, and of 0.3 one network diverged before anything was measured.
    assert "in all seeds the median gap reaches 52 (float32) at learning rate 0.2 and 373 (float64) at learning" in text
    assert len({line.get_color() for line in gap.lines} - {GREY}) == 3
    assert {text.get_text() for text in growth.texts} == {"0.01", "0.2", "0.3"}
    write_figure(figure, unstable(gaps), chosen, tmp_path / "instability")
    assert (tmp_path / "instability.png").stat().st_size > 5000
    never = figure.draw(unstable({(0.01, 0): [1.0]}), chosen).get_supxlabel()
    assert "reaches 52 (float32) at no learning rate and 373 (float64) at no learning rate" in never


def test_instability_that_was_not_measured_is_explained() -> None:
    figure, chosen = draw("pepita_instability", {"variants": {"natural images": "natural"}})
    frame = unstable({(0.01, 0): [1.0]})
    frame["history"] = [[{"epoch": 1, "loss": 0.5}]]
    with pytest.raises(UserError, match="natural was trained without `stability_images`; set them in the population"):
        figure.draw(frame, chosen)
