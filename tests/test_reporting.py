"""Statistics against formulas and SciPy; tables and figures against the papers' rules and their own promises."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from creditflow import plugins
from creditflow.errors import UserError
from creditflow.records import Keys, Metric, Record
from creditflow.reporting.collection import RECORD_COLUMNS, SUMMARY_COLUMNS, long_form, read_frame, summarize
from creditflow.reporting.figure import Figure, rule_style, write_figure
from creditflow.reporting.statistics import INTERVAL, resampled_means, two_way_interval
from creditflow.reporting.table import Table, attack_table, marks, write_table
from creditflow.settings import parse

RNG = np.random.default_rng(0)


def crossed(n_seeds: int, n_images: int) -> np.ndarray:
    """Outcomes with a seed effect and an image effect."""
    chance = RNG.normal(0, 0.8, (n_seeds, 1)) + RNG.normal(0.5, 1.5, (1, n_images))
    return RNG.random((n_seeds, n_images)) < 1 / (1 + np.exp(-chance))


@pytest.mark.parametrize(("n_seeds", "n_images"), [(1, 400), (3, 300), (8, 50)])
def test_the_two_way_bootstraps_variance_is_the_crossed_formula(n_seeds: int, n_images: int) -> None:
    """Var = s_R^2 / S + s_C^2 / N + s_E^2 / (S N), from the decomposition x = mean + row + column + rest."""
    x = crossed(n_seeds, n_images).astype(float)
    row, column = x.mean(1, keepdims=True) - x.mean(), x.mean(0, keepdims=True) - x.mean()
    rest = x - x.mean() - row - column
    expected = (row**2).mean() / n_seeds + (column**2).mean() / n_images + (rest**2).mean() / x.size
    assert resampled_means(x.astype(bool)).var() == pytest.approx(expected, rel=0.12)  # 2,000 resamples: 3 sd is 10%


def test_with_one_seed_the_interval_is_scipys_bootstrap() -> None:
    x = crossed(1, 500)
    reference = scipy.stats.bootstrap((x[0],), np.mean, method="percentile", n_resamples=5000, rng=np.random.default_rng(1))
    low, high = two_way_interval(x)
    assert low == pytest.approx(reference.confidence_interval.low, abs=0.006)
    assert high == pytest.approx(reference.confidence_interval.high, abs=0.006)


def test_certain_outcomes_have_no_interval_and_none_is_an_error() -> None:
    assert two_way_interval(np.ones((3, 20), bool)) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no outcomes"):
        two_way_interval(np.ones((3, 0), bool))


# Rows of the sign-symmetry paper's Table 1, in its column order BP, uSF, frSF, brSF, with the marks it prints.
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([90.62, 90.62, 93.75, 87.5], ["", "", "best", ""]),
        ([90.62, 87.5, 84.37, 84.37], ["best", "second", "", ""]),
        ([93.75, 96.87, 90.62, 90.62], ["second", "best", "", ""]),
        ([65.62, 59.37, 56.25, 62.5], ["best", "", "", "second"]),
        ([84.37, 81.25, 81.25, 84.37], ["second", "", "", "second"]),
        ([96.87, 96.87, 87.5, 87.5], ["second", "second", "", ""]),
        ([87.5, 84.37, 84.37, 84.37], ["best", "", "", ""]),
        ([100.0, 100.0, 100.0, 90.62], ["", "", "", ""]),
        ([50.0], ["best"]),
        ([], []),
    ],
)
def test_marks_follow_the_papers_caption(values: list[float], expected: list[str]) -> None:
    assert marks(values) == expected


def records() -> list[Record]:
    found = []
    for rule, level in (("bp", 0.6), ("frsf", 0.8), ("new_rule", 0.7)):
        for seed in range(3):
            for attack, gradient, epsilons in (
                ("clean", "none", [None]), ("fgsm", "exact", [0.0, 0.1]), ("fgsm", "feedback", [0.0, 0.1]),
                ("pgd", "exact", [0.0, 0.1]), ("pgd", "feedback", [0.0, 0.1]), ("boundary", "none", [2.0]), ("hopskipjump", "none", [2.0]),
            ):  # fmt: skip
                keys = Keys("e", "classification", "fashion_5_9", "lenet5", rule, seed, attack, gradient)
                correct = np.random.default_rng([seed, len(attack)]).random((len(epsilons), 40)) < level
                name = "accuracy" if attack == "clean" else "robust_accuracy"
                metrics = [Metric(name, e, float(row.mean()), 40) for e, row in zip(epsilons, correct, strict=True)]
                extra = [Metric("queries_per_image", None, 3.0, 40)] if attack != "clean" else []
                outcomes = {"correct": correct, "example": np.arange(40)}
                norm = {"clean": "", "fgsm": "linf", "pgd": "linf"}.get(attack, "l2")
                content = {"settings": {"norm": norm}}
                found.append(Record(Path(f"{rule}{seed}{attack}{gradient}.json"), keys, (*metrics, *extra), outcomes, content))
    return found


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return summarize(records())


def test_the_long_form_holds_every_metric_once() -> None:
    everything = records()
    frame = long_form(everything[::-1])
    assert list(frame.columns) == RECORD_COLUMNS
    assert len(frame) == sum(len(record.metrics) for record in everything)
    pd.testing.assert_frame_equal(frame, long_form(everything))


def test_the_summary_is_the_mean_of_the_records(summary: pd.DataFrame) -> None:
    assert list(summary.columns) == SUMMARY_COLUMNS
    frame = long_form(records())
    for row in summary.itertuples():
        same = frame[
            (frame.rule == row.rule) & (frame.attack == row.attack) & (frame.gradient == row.gradient) & (frame.metric == row.metric)
        ]
        same = same[same.epsilon.isna() if np.isnan(row.epsilon) else same.epsilon == row.epsilon]
        assert row.value == pytest.approx(same.value.mean())
        assert row.low <= row.value <= row.high
        assert (row.n_images, row.n_seeds, row.interval) == (40, 3, INTERVAL)


def test_seeds_measured_on_other_images_are_not_mixed() -> None:
    everything = records()
    everything[1] = replace(everything[1], outcomes=everything[1].outcomes | {"example": np.arange(1, 41)})
    everything[8] = replace(everything[8], outcomes=everything[8].outcomes | {"example": np.arange(1, 41)})
    with pytest.raises(UserError, match="differ in epsilons or images"):
        summarize(everything)


SETTINGS = {"overview": {"epsilon_linf": 0.1, "epsilon_l2": 2}, "table3": {"epsilon": 2}, "table4": {"epsilon": 2}}


@pytest.mark.parametrize(
    "name", [name for name in plugins.names("table") if plugins.declared("table", name, "source", "summary") == "summary"]
)
def test_every_table_says_what_the_summary_says_in_every_format(name: str, summary: pd.DataFrame, tmp_path: Path) -> None:
    table: Table = plugins.load("table", name).TABLE
    selected = table.select(summary, parse(table.settings, SETTINGS.get(name, {}), name))
    write_table(table, selected, "A caption & more.", tmp_path / name)
    read_back = pd.read_csv(tmp_path / f"{name}.csv")
    np.testing.assert_allclose(read_back.value, selected.value)
    texts = {suffix: (tmp_path / f"{name}.{suffix}").read_text() for suffix in ("md", "tex", "html")}
    for suffix, text in texts.items():
        for row in selected.itertuples():
            assert f"{100 * row.value:.1f}" in text
        for word in ("frSF", "40 images", "3 seeds", "two-way bootstrap"):
            assert word in text, suffix
        assert ("new\\_rule" if suffix == "tex" else "new_rule") in text
    assert texts["md"].index("BP") < texts["md"].index("frSF") < texts["md"].index("new_rule")
    assert {"md": "**", "tex": r"\textbf", "html": "<b>"}["md"] in texts["md"]
    assert r"\textbf" in texts["tex"]
    assert r"\%" in texts["tex"]
    assert "<b>" in texts["html"]


def test_an_epsilon_nobody_measured_is_named(summary: pd.DataFrame) -> None:
    table = attack_table("boundary")
    with pytest.raises(UserError, match=r"no record of attack 'boundary' at epsilon 3; it has \[2.0\]"):
        table.select(summary, parse(table.settings, {"epsilon": 3}, "table"))


def test_the_figure_draws_what_the_summary_says_and_equal_numbers_give_equal_files(summary: pd.DataFrame, tmp_path: Path) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    for name in ("one", "two"):
        write_figure(figure, summary, figure.settings(), tmp_path / name)
    for suffix in ("pdf", "svg", "png"):
        content = (tmp_path / f"one.{suffix}").read_bytes()
        assert len(content) > 5000
        assert content == (tmp_path / f"two.{suffix}").read_bytes()
    canvas = figure.draw(summary, figure.settings())
    titles = [axes.get_title() for axes in canvas.axes]
    assert titles == ["attacker's gradient: exact", "attacker's gradient: feedback weights", "", ""]
    for axes, attack, gradient in zip(canvas.axes, ("fgsm", "fgsm", "pgd", "pgd"), ("exact", "feedback") * 2, strict=True):
        for line, rule in zip(axes.lines, ("bp", "frsf", "new_rule"), strict=True):
            rows = summary[(summary.attack == attack) & (summary.gradient == gradient) & (summary.rule == rule)].sort_values("epsilon")
            np.testing.assert_allclose(line.get_ydata(), 100 * rows.value)


def test_every_point_stands_over_its_own_epsilon(summary: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    # FGSM was not run at 0: its one point belongs over the second tick.
    partial = summary[~((summary.attack == "fgsm") & (summary.epsilon == 0))]
    axes = figure.draw(partial, figure.settings()).axes
    assert [label.get_text() for label in axes[2].get_xticklabels()] == ["0", "0.1"]
    assert list(axes[0].lines[0].get_xdata()) == [1]


def test_rules_look_different_from_each_other() -> None:
    rules = ["bp", "usf", "frsf", "brsf", "fa", "x", "y"]
    assert len({tuple(rule_style(rule, rules).values()) for rule in rules}) == len(rules)


def test_a_figure_without_its_records_says_so(summary: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    with pytest.raises(UserError, match="figure2: no record of FGSM or PGD for dataset 'other'; found: fashion_5_9"):
        figure.draw(summary, figure.settings(dataset="other"))
    with pytest.raises(UserError, match="no record"):
        figure.draw(summary[summary.attack == "clean"], figure.settings())
    twice = pd.concat([summary, summary.assign(dataset="other")])
    with pytest.raises(UserError, match="choose one dataset of fashion_5_9, other"):
        figure.draw(twice, figure.settings())


def test_what_is_not_a_summary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not parquet")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    for name in ("text", "other"):
        with pytest.raises(UserError, match="is not a summary"):
            read_frame(tmp_path / f"{name}.parquet", "summary")
