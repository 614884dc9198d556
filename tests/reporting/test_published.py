"""Published numbers: how many images they rest on, and what of them a reader sees."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.reporting.listing import Listing
from creditflow.reporting.published import COLUMNS, as_accuracy, images_behind, read_published
from helpers import ROOT


@settings(max_examples=50, deadline=None)
@given(n=st.sampled_from([20, 32, 50, 100]), seed=st.integers(0, 10_000), truncated=st.booleans())
def test_the_number_of_images_is_read_off_the_grid_of_values(n: int, seed: int, truncated: bool) -> None:
    counts = np.random.default_rng(seed).integers(0, n + 1, 40)
    printed = [f"{int(10_000 * k / n) / 100 if truncated else 100 * k / n:.2f}" for k in counts]
    assert n % images_behind(printed) == 0  # a divisor where all counts happen to share a factor


def test_values_on_no_grid_betray_nothing_and_misprints_are_forgiven() -> None:
    rng = np.random.default_rng(0)
    assert np.isnan(images_behind([f"{value:.2f}" for value in rng.uniform(0, 100, 40)]))
    on_grid = [f"{100 * k / 32:.2f}" for k in rng.integers(0, 33, 39)]
    assert images_behind([*on_grid, "3.15"]) == 32


def test_the_sign_symmetry_papers_accuracies_rest_on_32_images() -> None:
    frame = read_published(ROOT / "config/published/sign_symmetry.csv")
    frame = frame[frame.table != "table2"]
    assert set(frame.n) == {32.0}
    assert len(frame) == 4 * (12 + 9 + 9)
    cell = frame[
        (frame.table == "table3") & (frame.backbone == "resnet18") & (frame.dataset == "coco") & (frame.rule == "usf")
    ].iloc[0]
    expected = binomtest(6, 32).proportion_ci(method="exact")
    assert (cell.low, cell.high) == pytest.approx((expected.low, expected.high))


def test_every_cell_of_the_papers_tables_is_there_once() -> None:
    """48 cells in Tables 1 and 2, of which Table 2 leaves three empty; 36 in Tables 3 and 4, which have no NUS-WIDE."""
    frame = read_published(ROOT / "config/published/sign_symmetry.csv")
    datasets = {"table1": "imagenet", "table2": "imagenet100", "table3": "imagenet", "table4": "imagenet"}
    expected = {
        (table, backbone, dataset, rule)
        for table in datasets
        for backbone in ("alexnet", "resnet18", "vgg16")
        for dataset in ("cifar10", "coco", datasets[table], *(["nus_wide"] if table < "table3" else []))
        for rule in ("bp", "usf", "frsf", "brsf")
        if (table, dataset, rule) != ("table2", "nus_wide", "brsf")
    }
    keys = list(zip(frame.table, frame.backbone, frame.dataset, frame.rule, strict=True))
    assert len(keys) == len(expected)
    assert set(keys) == expected
    assert frame.groupby("table")[["attack", "metric"]].first().to_dict("index") == {
        "table1": {"attack": "clean", "metric": "accuracy"},
        "table2": {"attack": "clean", "metric": "map"},
        "table3": {"attack": "boundary", "metric": "robust_accuracy"},
        "table4": {"attack": "hopskipjump", "metric": "robust_accuracy"},
    }


def test_table_2_holds_no_proportions_and_its_columns_are_not_those_of_table_1() -> None:
    frame = read_published(ROOT / "config/published/sign_symmetry.csv")
    table2 = frame[frame.table == "table2"]
    assert table2[["n", "low", "high"]].isna().all(axis=None)
    assert not table2.inferred.any()
    # Rows of the paper, whose head is BP, frSF, uSF, brSF here.
    for backbone, dataset, percents in (
        ("alexnet", "coco", ["74.1", "71.5", "71.4", "71.1"]),
        ("resnet18", "cifar10", ["80.4", "75.6", "77.2", "85.4"]),
        ("vgg16", "imagenet100", ["77.5", "79.6", "80.6", "77.6"]),
    ):
        row = table2[(table2.backbone == backbone) & (table2.dataset == dataset)].set_index("rule").percent
        assert list(row[["bp", "frsf", "usf", "brsf"]]) == percents


def test_where_the_number_of_images_is_stated_nothing_is_inferred() -> None:
    frame = read_published(ROOT / "config/published/biotorch.csv")
    assert set(frame.n) == {10_000.0}
    assert not frame.inferred.any()
    cell = frame.set_index("rule").loc["fa"]
    expected = binomtest(1306, 10_000).proportion_ci(method="exact")
    assert (cell.value, cell.low, cell.high) == pytest.approx((0.1306, expected.low, expected.high))
    turned = as_accuracy(frame).set_index("rule").loc["fa"]
    mirrored = binomtest(10_000 - 1306, 10_000).proportion_ci(method="exact")
    assert turned.metric == "accuracy"
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - 0.1306, mirrored.low, mirrored.high))


@pytest.mark.parametrize(
    ("file", "cells"),
    [
        (
            "sign_symmetry",
            [
                "| 25.0* (11 to 43)",
                "| 71.5 ",
                "table 1: 32 (inferred), 2: not known, 3: 32 (inferred), 4: 32 (inferred)",
            ],
        ),
        ("biotorch", ["| 9.2 (8.6 to 9.8)", "| 13.1* (12.4 to 13.7)", "table benchmark: 10000 (stated)"]),
    ],
)
def test_the_published_table_shows_intervals_where_there_are_any(file: str, cells: list[str], tmp_path: Path) -> None:
    table: Listing = plugins.load("table", "published").TABLE
    table.write(
        [read_published(ROOT / f"config/published/{file}.csv")],
        plugins.settings_class("table", "published")(),
        "A caption.",
        tmp_path / "published",
    )
    text = (tmp_path / "published.md").read_text(encoding="utf-8")
    for cell in cells:
        assert cell in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "must have the columns"),
        (",".join(COLUMNS) + "\np,t,b,d,r,a,m,120\n", "120 is not a percentage"),
        (",".join(COLUMNS) + "\np,t,b,d,r,a,eror,12\n", "unknown metric 'eror'; did you mean 'error'"),
        (",".join([*COLUMNS, "n"]) + "\np,t,b,d,r,a,error,12,0\n", "n must be a number of images"),
        (",".join([*COLUMNS, "n"]) + "\np,t,b,d,r,a,error,12,many\n", "many"),
        (",".join([*COLUMNS, "n"]) + "\np,t,b,d,r,a,map,12,100\n", "only proportions of images have one"),
        ("", "is not a table"),
    ],
)
def test_broken_published_numbers_are_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_published(tmp_path / "x.csv")
