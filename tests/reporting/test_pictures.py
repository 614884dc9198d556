"""What readers see of figures and tables: names in place of ids, labels that cover nothing, captions that are true."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text

from audit_records import AUDIT, MASKED, PLAIN, measured
from creditflow.core import plugins
from creditflow.core.settings import NoSettings, parse
from creditflow.reporting.collection import summarize
from creditflow.reporting.entries import PARTS, entry_part, entry_title
from creditflow.reporting.figures.settings.retrieved import Settings as RetrievedSettings
from creditflow.reporting.names import condition_title, display
from creditflow.reporting.style import End, apart, epsilon_axis, label_ends, label_points
from creditflow.verdict.verdicts import audit
from creditflow.workflow.loading import load_experiments
from helpers import ROOT
from outcome_records import clean, gradient_records

KINDS = ("rule", "update_rule", "attack", "hash_attack", "dataset", "backbone")
GRADIENTS = ("exact", "own", "feedback", "none", "surrogate:twin", "surrogate:other_seed", "through:fa", "through:fa:2")


def test_every_id_that_exists_has_a_name() -> None:
    ids = {name for kind in KINDS for name in plugins.names(kind)}
    for experiment in load_experiments(ROOT / "config/experiments").values():
        ids |= {*experiment.datasets, *experiment.networks, *experiment.keys.get("rules", ())}
        ids |= set(experiment.keys.get("attacks", ()))
    assert not {name for name in ids if "_" in display(name)}
    attacks = [*plugins.names("attack"), *plugins.names("hash_attack")]
    titles = [condition_title(f"{attack} {gradient}") for attack in attacks for gradient in GRADIENTS]
    assert not [title for title in titles if "_" in title or ":" in title or title.endswith("feedback")]


def test_the_report_has_a_title_and_a_question_for_every_table_and_figure() -> None:
    for kind in ("figure", "table"):
        names = plugins.built_in_names(kind)
        titles = [entry_title(kind, name) for name in names]
        assert len(set(titles)) == len(titles) and not [title for title in titles if "_" in title]
        assert {entry_part(kind, name) for name in names} <= set(PARTS.values())
    assert sorted(PARTS.values()) == list(PARTS.values())  # the report sorts them by their text
    assert entry_title("figure", "from_elsewhere") == "From elsewhere (figure)"


@pytest.mark.parametrize("kind", ["figure", "table"])
def test_captions_name_no_network_and_no_dataset(kind: str) -> None:
    """A caption is a text without records; networks and datasets stand in the note, which has them from the records."""
    names = [display(name) for room in ("backbone", "dataset") for name in plugins.names(room)]
    names = [name for name in names if name[0].isupper()]
    for caption in (plugins.docstring(kind, name) for name in plugins.built_in_names(kind)):
        assert not [name for name in names if name in caption]
        assert caption.rstrip().endswith(".") and "_" not in caption.replace("audit_guards", "").replace(
            "gradient_matrix", ""
        ).replace("transfer_matrix", "").replace("W_1", "")


def drawn(name: str, frame: pd.DataFrame, **settings: Any) -> Canvas:
    canvas: Canvas = plugins.load("figure", name).FIGURE.draw(
        frame, parse(plugins.settings_class("figure", name), settings, name)
    )
    return canvas


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    """A summary of PGD on networks whose clean records know that chance is 20%."""
    return summarize([each for each in gradient_records() if "through" not in each.keys.gradient])


@pytest.mark.parametrize("backbone", ["lenet5", "vgg16", "alexnet"])
def test_the_note_names_the_network_and_the_data_of_the_records(backbone: str, summary: pd.DataFrame) -> None:
    rows = summary.assign(backbone=backbone, dataset="cifar10")
    retrieval = rows.assign(task="retrieval", metric="map")
    for name, frame in (("figure2", rows), ("figure3", retrieval)):
        text = drawn(name, frame, backbone=backbone).get_supxlabel()
        assert text.startswith(f"{display(backbone)} on CIFAR-10") and "300 images x 3 seeds" in text
        assert not [other for other in ("lenet5", "vgg16", "alexnet") if other != backbone and display(other) in text]


def test_chance_is_a_labelled_line_of_figures_and_no_column_of_csv_files(summary: pd.DataFrame, tmp_path: Path) -> None:
    rows = summary
    assert set(rows.chance) == {0.2}
    (panel, *_) = drawn("figure2", rows).axes
    (line,) = [line for line in panel.lines if line.get_label() == "_chance"]
    assert set(line.get_ydata()) == {20.0} and "chance: 20%" in [text.get_text() for text in panel.texts]
    table = plugins.load("table", "figure2").TABLE
    table.write([rows], NoSettings(), "A caption.", tmp_path / "t")
    assert list(pd.read_csv(tmp_path / "t.csv").columns) == [name for name in rows.columns if name != "chance"]
    unknown = rows.assign(chance=np.nan)
    assert not [line for line in drawn("figure2", unknown).axes[0].lines if line.get_label() == "_chance"]
    assert len(drawn("figure2", rows.drop(columns="chance")).axes) == 2


def two_sizes() -> pd.DataFrame:
    """An audit of four rules at two epsilons, with the longest words, and attacks whose numbers lie close together."""
    records = measured("bp", PLAIN)
    for rule, shift in (("usf", 0.0), ("frsf", 0.01), ("fa", 0.02)):
        records += measured(rule, {name: share + shift for name, share in MASKED.items()})
    frame = audit(records, AUDIT)
    frame["net_effect"] = frame.net_effect.where(frame.net_effect == "", "no difference beyond 5 points")
    return pd.concat([frame, frame.assign(epsilon=0.3)], ignore_index=True)


def test_no_two_texts_of_the_audits_figure_cover_each_other() -> None:
    canvas = drawn("audit", two_sizes())
    canvas.draw_without_rendering()
    texts = [canvas._supxlabel, *canvas.legends[0].get_texts()]  # type: ignore[attr-defined]
    for axes in canvas.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        texts += [*axes.get_xticklabels(), *(axes.get_yticklabels() if axes is canvas.axes[0] else [])]
    boxes = {f"{index} {text.get_text()}": text.get_window_extent() for index, text in enumerate(texts)}
    boxes = {name: box for name, box in boxes.items() if box.width > 0}
    assert len(boxes) > 20
    overlapping = [(one, two) for one, two in combinations(boxes, 2) if boxes[one].overlaps(boxes[two])]
    assert not overlapping


def test_the_audits_figure_has_the_claim_the_worst_case_and_a_tick_for_clean_accuracy_and_no_mark_on_another() -> None:
    frame = two_sizes()
    canvas = drawn("audit", frame)
    canvas.draw_without_rendering()
    axes = canvas.axes[0]
    lines = {str(line.get_label()): line for line in axes.lines}
    row = frame[(frame.rule == "frsf") & (frame.epsilon == 0.1)].iloc[0]
    place = [label.get_text() for label in axes.get_yticklabels()].index("frSF")
    at = {
        (line.get_marker(), round(float(line.get_xdata()[0]), 6))
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_ydata()[0] == place
    }
    expected = {("|", row.clean), ("o", row["accuracy pgd feedback"]), ("D", row.worst)}
    assert {(marker, round(100 * value, 6)) for marker, value in expected} <= at
    assert lines["worst case of the reference"].get_linestyle() == "--"
    small = [line for line in axes.lines if line.get_markersize() == 4 and len(line.get_xdata()) == 1]
    points = [axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])) for line in small]
    nearest = min(float(np.hypot(*(one - two))) for one, two in combinations(points, 2))
    assert len(points) > 12 and nearest > 4 * canvas.dpi / 72 * 0.95  # a mark is four points wide


def test_the_audits_figure_draws_for_each_rule_the_worst_case_of_its_own_reference() -> None:
    frame = two_sizes()
    frame["difference"] = np.where(frame.rule == "frsf", frame.difference - 0.25, frame.difference)
    shown = frame[frame.epsilon == 0.1].set_index("rule")
    axes = next(axes for axes in drawn("audit", frame).axes if axes.get_title() == "epsilon 0.1")
    rules = [label.get_text() for label in axes.get_yticklabels()]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    drawn_at = {rules[round(np.mean(line.get_ydata()))]: line.get_xdata()[0] for line in dashed}
    plain = 100 * shown.worst["bp"]
    assert drawn_at["BP"] == pytest.approx(plain) and drawn_at["uSF"] == pytest.approx(plain)
    assert drawn_at["frSF"] == pytest.approx(plain + 25)


def test_epsilons_are_spaced_as_they_are() -> None:
    axes = Canvas().subplots()
    epsilons = [0, 0.001, 0.01, 0.1, 0.5]
    epsilon_axis(axes, epsilons)
    places = axes.transData.transform([(epsilon, 0) for epsilon in epsilons])[:, 0]
    steps = np.diff(places)
    assert steps[1] == pytest.approx(steps[2]) and steps[3] == pytest.approx(steps[2] * np.log10(5))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.001", "0.01", "0.1", "0.5"]
    assert "logarithmic" in axes.get_xlabel()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_are_moved_apart_in_their_order(places: list[float]) -> None:
    moved = apart(places, 0.1)
    order = np.argsort(places, kind="stable")
    assert all(np.diff(np.array(moved)[order]) > 0.1 - 1e-9) and max(moved) <= 1 + 1e-9
    spread = sorted(places)
    if all(np.diff(spread) >= 0.1):
        assert moved == places  # what does not touch is not moved


def test_the_labels_of_lines_and_of_points_cover_nothing() -> None:
    canvas = Canvas(figsize=(5, 3), layout="constrained")
    axes = canvas.subplots()
    rng = np.random.default_rng(0)
    points = [End(x, y, f"point {i}", "black") for i, (x, y) in enumerate(rng.uniform(0.45, 0.55, (8, 2)))]
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_ends(axes, [End(1, 0.5, f"line {index}", "black") for index in range(5)], 2.4)
    label_points(axes, points)
    canvas.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
    assert len(boxes) == 13
    assert not [pair for pair in combinations(range(13), 2) if boxes[pair[0]].overlaps(boxes[pair[1]])]


def test_a_page_has_intervals_below_their_numbers_and_fits_a_narrow_window(tmp_path: Path) -> None:
    frame = two_sizes()
    table = plugins.load("table", "audit").TABLE
    for name, rows in (("one", frame), ("two", pd.concat([frame, frame.assign(dataset="other")]))):
        table.write([rows], NoSettings(), "A caption.", tmp_path / name)
    row = frame[frame.rule == "frsf"].iloc[0]
    value, low, high = (f"{100 * row[name]:+.1f}" for name in ("difference", "low", "high"))
    assert f"{value}<br><small>{low} to {high}</small>" in (tmp_path / "one.html").read_text(encoding="utf-8")
    assert f"{value} ({low} to {high})" in (tmp_path / "one.md").read_text(encoding="utf-8")
    html = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "overflow-x:auto" in html and "prefers-color-scheme:dark" in html and "Dataset" in html


def test_records_without_chance_are_summarised_all_the_same() -> None:
    records = [replace(each, content={"settings": {"norm": ""}}) for each in (clean("bp", 0), clean("bp", 1))]
    assert summarize(records).chance.isna().all()


@pytest.mark.parametrize(
    ("query", "found", "below"),
    [
        (np.array([1]), np.array([[0, 2]]), ["b", "a", "a long name o…"]),
        (np.array([[1, 1, 0]]), np.array([[[0, 0, 1], [0, 0, 0]]]), ["a + 1", "a long name o…", "no class"]),
    ],
)
def test_below_what_a_query_retrieves_stands_its_class(query: Any, found: Any, below: list[str]) -> None:
    keys = {"backbone": "lenet5", "rule": "frsf", "dataset": "digits", "seed": 0, "attack": "hag", "gradient": "exact"}
    row: dict[str, Any] = keys | {"epsilon": 0.1, "class_names": ["a", "b", "a long name of a class"]}
    row |= {"query_labels": query, "clean_found_labels": found, "attacked_found_labels": found}
    for kind in ("clean", "attacked"):
        row |= {f"{kind}_query": np.zeros((1, 1, 4, 4), np.uint8), f"{kind}_relevant": np.array([[True, False]])}
        row[f"{kind}_found"] = np.zeros((1, 2, 1, 4, 4), np.uint8)
    canvas = plugins.load("figure", "retrieved").FIGURE.draw(
        pd.DataFrame([row]), parse(RetrievedSettings, {}, "retrieved")
    )
    assert [axes.get_xlabel() for axes in canvas.axes] == below * 2
