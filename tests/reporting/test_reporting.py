"""Collected records, tables and figures against the papers' rules and their own promises."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from creditflow.core import files, plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.records.record import Keys, Metric, Record
from creditflow.reporting.collection import (
    RECORD_COLUMNS,
    SUMMARY_COLUMNS,
    long_form,
    read_frame,
    read_frames,
    summarize,
)
from creditflow.reporting.figure import Figure, write_figure
from creditflow.reporting.rules import rule_style
from creditflow.reporting.table import Table, attack_table, marks
from creditflow.verdict.statistics import INTERVAL


def chosen(kind: str, name: str, **values: Any) -> Any:
    """Returns the checked settings of a table or figure."""
    return parse(plugins.settings_class(kind, name), values, name)


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
                ("clean", "none", [None]),
                ("fgsm", "exact", [0.0, 0.1]),
                ("fgsm", "feedback", [0.0, 0.1]),
                ("pgd", "exact", [0.0, 0.1]),
                ("pgd", "feedback", [0.0, 0.1]),
                ("boundary", "none", [2.0]),
                ("hopskipjump", "none", [2.0]),
            ):
                keys = Keys("e", "classification", "fashion_5_9", "lenet5", rule, seed, attack, gradient)
                correct = np.random.default_rng([seed, len(attack)]).random((len(epsilons), 40)) < level
                name = "accuracy" if attack == "clean" else "robust_accuracy"
                metrics = [Metric(name, e, float(row.mean()), 40) for e, row in zip(epsilons, correct, strict=True)]
                extra = [Metric("queries_per_image", None, 3.0, 40)] if attack != "clean" else []
                outcomes = {"correct": correct, "example": np.arange(40)}
                norm = {"clean": "", "fgsm": "linf", "pgd": "linf"}.get(attack, "l2")
                content = {"settings": {"norm": norm}}
                found.append(
                    Record(Path(f"{rule}{seed}{attack}{gradient}.json"), keys, (*metrics, *extra), outcomes, content)
                )
    return found


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return summarize(records())


def test_the_long_form_holds_every_metric_once() -> None:
    everything = records()
    frame = long_form(everything[::-1])
    assert list(frame.columns) == [*RECORD_COLUMNS, "chance"]
    assert len(frame) == sum(len(record.metrics) for record in everything)
    pd.testing.assert_frame_equal(frame, long_form(everything))


def test_the_summary_is_the_mean_of_the_records(summary: pd.DataFrame) -> None:
    assert list(summary.columns) == [*SUMMARY_COLUMNS, "chance"]
    frame = long_form(records())
    for row in summary.itertuples():
        same = frame[
            (frame.rule == row.rule)
            & (frame.attack == row.attack)
            & (frame.gradient == row.gradient)
            & (frame.metric == row.metric)
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


#: Tables of accuracies; `sal_table2` lists what rules declare (tests/test_population_reporting.py).
OF_ACCURACIES = [
    name
    for name in plugins.names("table")
    if plugins.declared("table", name, "source", "summary") == "summary" and name != "sal_table2"
]


@pytest.mark.parametrize("name", OF_ACCURACIES)
def test_every_table_says_what_the_summary_says_in_every_format(
    name: str, summary: pd.DataFrame, tmp_path: Path
) -> None:
    table: Table = plugins.load("table", name).TABLE
    if name in ("table2", "retrieval_attacks"):
        summary = summary.assign(task="retrieval", metric="map")
    its = parse(plugins.settings_class("table", name), SETTINGS.get(name, {}), name)
    selected = table.select(summary, its)
    table.write([summary], its, "A caption & more.", tmp_path / name)
    read_back = pd.read_csv(tmp_path / f"{name}.csv")
    np.testing.assert_allclose(read_back.value, selected.value)
    texts = {suffix: (tmp_path / f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "tex", "html")}
    for suffix, text in texts.items():
        for row in selected.itertuples():
            assert f"{100 * row.value:.1f}" in text
        for word in ("frSF", "40 images", "3 seeds", "crossed random effects"):
            assert word in text, suffix
        assert ("new\\_rule" if suffix == "tex" else "new_rule") in text
    assert texts["md"].index("BP") < texts["md"].index("frSF") < texts["md"].index("new_rule")
    assert "**" in texts["md"]
    assert r"\textbf" in texts["tex"]
    assert r"\%" in texts["tex"]
    assert "<b>" in texts["html"]


def test_an_epsilon_nobody_measured_is_named(summary: pd.DataFrame) -> None:
    table = attack_table("boundary")
    with pytest.raises(UserError, match=r"no record of attack 'boundary' at epsilon 3; it has \[2.0\]"):
        table.select(summary, chosen("table", "table3", epsilon=3))


@pytest.mark.parametrize("name", ["figure3", "figure6"])
def test_the_figures_of_retrieval_draw_every_attack_whatever_its_gradient(
    name: str, summary: pd.DataFrame, tmp_path: Path
) -> None:
    figure: Figure = plugins.load("figure", name).FIGURE
    backbone = summary.backbone.iloc[0]
    if name == "figure6":
        with pytest.raises(UserError, match="figure6: no record of attacks on retrieval for backbone 'alexnet'"):
            figure.draw(summary.assign(task="retrieval", metric="map"), chosen("figure", name))
    rows = summary.assign(task="retrieval", metric="map")
    canvas = figure.draw(rows, chosen("figure", name, backbone=backbone, dataset=rows.dataset.iloc[0]))
    assert (
        len(canvas.axes)
        == rows[rows.attack != "clean"].attack.nunique() * rows[rows.attack != "clean"].gradient.nunique()
    )
    with pytest.raises(UserError, match="no record of attacks on retrieval"):
        figure.draw(summary, chosen("figure", name))


def test_the_figure_draws_what_the_summary_says_and_equal_numbers_give_equal_files(
    summary: pd.DataFrame, tmp_path: Path
) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    for name in ("one", "two"):
        write_figure(figure, summary, chosen("figure", "figure2"), tmp_path / name)
    for suffix in ("pdf", "svg", "png"):
        content = (tmp_path / f"one.{suffix}").read_bytes()
        assert len(content) > 5000
        assert content == (tmp_path / f"two.{suffix}").read_bytes()
    canvas = figure.draw(summary, chosen("figure", "figure2"))
    titles = [axes.get_title() for axes in canvas.axes]
    assert titles == ["attacker uses the exact gradient", "attacker uses the rule's own feedback weights", "", ""]
    for axes, attack, gradient in zip(
        canvas.axes, ("fgsm", "fgsm", "pgd", "pgd"), ("exact", "feedback") * 2, strict=True
    ):
        for line, rule in zip(axes.lines, ("bp", "frsf", "new_rule"), strict=True):
            rows = summary[
                (summary.attack == attack) & (summary.gradient == gradient) & (summary.rule == rule)
            ].sort_values("epsilon")
            np.testing.assert_allclose(line.get_ydata(), 100 * rows.value)


def test_fresh_paths_are_left_to_the_matrix(summary: pd.DataFrame) -> None:
    fresh = summary[summary.gradient == "feedback"].assign(gradient="through:fa", value=0.123)
    for name in ("figure2", "overview"):
        table: Table = plugins.load("table", name).TABLE
        its = parse(plugins.settings_class("table", name), SETTINGS.get(name, {}), name)
        pd.testing.assert_frame_equal(table.select(pd.concat([summary, fresh]), its), table.select(summary, its))
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    assert len(figure.draw(pd.concat([summary, fresh]), chosen("figure", "figure2")).axes) == 4


def test_a_summary_that_is_read_has_bps_exact_accuracy_as_that_of_its_own_feedback_path(tmp_path: Path) -> None:
    attacked_once = [each for each in records() if (each.keys.rule, each.keys.gradient) != ("bp", "feedback")]
    summary = summarize(attacked_once)
    summary.attrs = {"identity": {"experiment": "e", "frame": "summary"}}
    files.write_parquet(tmp_path / "summary.parquet", summary)
    (frame,) = read_frames([tmp_path / "summary.parquet"], "summary", "e")
    of_bp = frame[(frame.rule == "bp") & (frame.attack == "pgd")].set_index(["gradient", "epsilon"]).value
    assert dict(of_bp["feedback"]) == dict(of_bp["exact"])
    assert len(frame) == len(summarize(records()))


def test_every_point_stands_over_its_own_epsilon(summary: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    # FGSM was not run at 0: its one point belongs over the second tick. Epsilons are spaced as they are.
    partial = summary[~((summary.attack == "fgsm") & (summary.epsilon == 0))]
    axes = figure.draw(partial, chosen("figure", "figure2")).axes
    assert [label.get_text() for label in axes[2].get_xticklabels()] == ["0", "0.1"]
    assert list(axes[0].lines[0].get_xdata()) == [0.1]


def test_rules_look_different_from_each_other() -> None:
    rules = ["bp", "usf", "frsf", "brsf", "fa", "dfa", "x", "y"]
    assert len({tuple(rule_style(rule, rules).values()) for rule in rules}) == len(rules)


def test_a_figure_without_its_records_says_so(summary: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure2").FIGURE
    with pytest.raises(UserError, match="figure2: no record of FGSM or PGD for dataset 'other'; found: fashion_5_9"):
        figure.draw(summary, chosen("figure", "figure2", dataset="other"))
    with pytest.raises(UserError, match="no record"):
        figure.draw(summary[summary.attack == "clean"], chosen("figure", "figure2"))
    twice = pd.concat([summary, summary.assign(backbone="vgg16")])
    with pytest.raises(UserError, match=r"figure2: choose one backbone of lenet5, vgg16 in the figure's settings"):
        figure.draw(twice, chosen("figure", "figure2"))


@pytest.mark.parametrize(("name", "backbone"), [("figure2", "resnet18"), ("figure4", "alexnet"), ("figure5", "vgg16")])
def test_each_white_box_figure_shows_its_backbone_on_every_dataset(
    name: str, backbone: str, summary: pd.DataFrame
) -> None:
    figure: Figure = plugins.load("figure", name).FIGURE
    parts = [
        summary.assign(backbone=one, dataset=dataset, value=summary.value * share)
        for one, share in ((backbone, 1.0), ("lenet5", 0.5))
        for dataset in ("cifar10", "coco")
    ]
    everything = pd.concat(parts, ignore_index=True)
    panels = figure.draw(everything, chosen("figure", name)).axes
    titles = [
        f"{dataset}\n{gradient}"
        for dataset in ("CIFAR-10", "MS-COCO")
        for gradient in ("exact gradient", "own feedback weights")
    ]
    assert [axes.get_title() for axes in panels] == titles + [""] * 4
    for axes, gradient in zip(panels, ("exact", "feedback") * 4, strict=True):
        attack = "fgsm" if axes in panels[:4] else "pgd"
        rows = summary[
            (summary.attack == attack) & (summary.gradient == gradient) & (summary.rule == "frsf")
        ].sort_values("epsilon")
        np.testing.assert_allclose(axes.lines[1].get_ydata(), 100 * rows.value)
    assert len(figure.draw(everything, chosen("figure", name, dataset="coco")).axes) == 4
    panel = figure.draw(everything, chosen("figure", name, dataset="coco", backbone="lenet5")).axes[0]
    assert max(panel.lines[0].get_ydata()) < 50


def test_a_figure_of_a_backbone_that_was_not_trained_says_what_there_is(summary: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure4").FIGURE
    message = (
        "figure4: no record of FGSM or PGD for backbone 'alexnet'; found: lenet5;"
        " choose by `backbone` in the figure's settings"
    )
    with pytest.raises(UserError, match=message):
        figure.draw(summary, chosen("figure", "figure4"))


# Degrees and cosine at the end of training.
ANGLES = {
    "bp": (0.0, 1.0),
    "usf": (38.0, 0.8),
    "frsf": (46.0, 0.69),
    "brsf": (46.5, 0.69),
    "fa": (80.0, 0.05),
    "dfa": (81.0, 0.0),
    "new": (91.0, 0.3),
}
EPOCHS = 4


@pytest.fixture(scope="module")
def angles() -> pd.DataFrame:
    """Angles that fall by a degree an epoch, in three seeds that lie a degree apart."""
    rows = []
    for (rule, (angle, cosine)), seed in product(ANGLES.items(), range(3)):
        keys = Keys("e", "classification", "fashion_mnist", "lenet5", rule, seed, "clean", "none")
        metrics = [Metric("accuracy", None, 0.9, 40)]
        for epoch in range(1, EPOCHS + 1):
            spread = 0 if rule == "bp" else EPOCHS - epoch + seed - 1
            metrics += [
                Metric("update_angle", None, angle + spread, 40, epoch),
                Metric("feedback_cosine", None, cosine, 40, epoch),
            ]
        rows.append(Record(Path("none"), keys, tuple(metrics), {}, {}))
    return long_form(rows)


def test_figure_1_shows_angles_over_epochs_and_the_last_against_the_cosine(
    angles: pd.DataFrame, tmp_path: Path
) -> None:
    figure: Figure = plugins.load("figure", "figure1").FIGURE
    assert plugins.declared("figure", "figure1", "source") == figure.source == "records"
    for name in ("one", "two"):
        write_figure(figure, angles, chosen("figure", "figure1"), tmp_path / name)
    for suffix in ("pdf", "svg", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    left, right = figure.draw(angles, chosen("figure", "figure1")).axes
    curves = {line.get_label(): line for line in left.lines}
    assert list(curves["frSF"].get_xdata()) == [1, 2, 3, 4]
    np.testing.assert_allclose(curves["frSF"].get_ydata(), [49, 48, 47, 46])
    points = [(bar.lines[0].get_ydata()[0], bar.lines[0].get_xdata()[0]) for bar in right.containers]
    np.testing.assert_allclose(points, list(ANGLES.values()), atol=1e-12)
    texts = {text.get_text(): text.get_position()[1] for text in right.texts}
    assert set(texts) == {"BP, 32 bits", "uSF, 1 bit", "frSF, 1 bit", "brSF, 1 bit", "FA, 0 bits", "DFA, 0 bits", "new"}
    heights = sorted(texts.values())
    assert min(np.diff(heights)) > 6  # no label on another
    assert heights[0] >= 0
    assert heights[-1] < 100


def test_figure_1_without_its_records_says_what_to_set(angles: pd.DataFrame) -> None:
    figure: Figure = plugins.load("figure", "figure1").FIGURE
    with pytest.raises(
        UserError, match=r"figure1: no record of update angles and feedback cosines.*set `angle_images`"
    ):
        figure.draw(angles[angles.metric == "accuracy"], chosen("figure", "figure1"))
    with pytest.raises(UserError, match="figure1: choose one dataset of fashion_mnist, other in the figure's settings"):
        figure.draw(pd.concat([angles, angles.assign(dataset="other")]), chosen("figure", "figure1"))
    figure.draw(angles[angles.seed == 0], chosen("figure", "figure1", dataset="fashion_mnist", backbone="lenet5"))


def test_what_is_not_a_summary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.parquet").write_text("not parquet", encoding="utf-8")
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    for name in ("text", "other"):
        with pytest.raises(UserError, match="is not a summary"):
            read_frame(tmp_path / f"{name}.parquet", "summary")
