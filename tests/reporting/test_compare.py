"""Published numbers beside ours: what is paired with what, what lies inside, and what the table says of stand-ins."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import write_parquet
from creditflow.core.settings import parse
from creditflow.reporting.collection import SUMMARY_COLUMNS, read_frames
from creditflow.reporting.listing import Listing
from creditflow.reporting.published import read_published
from creditflow.verdict.statistics import INTERVAL
from helpers import ROOT, project, snakemake, stage

TABLE: Listing = plugins.load("table", "compare").TABLE
Settings = plugins.settings_class("table", "compare")
PAPER, BIOTORCH = (ROOT / f"config/published/{name}.csv" for name in ("sign_symmetry", "biotorch"))


def row(
    rule: str,
    value: float,
    *,
    dataset: str = "cifar10",
    backbone: str = "alexnet",
    attack: str = "clean",
    epsilon: float = float("nan"),
) -> dict[str, Any]:
    metric = "accuracy" if attack == "clean" else "robust_accuracy"
    keys: dict[str, Any] = {
        "experiment": "e",
        "task": "classification",
        "dataset": dataset,
        "backbone": backbone,
        "rule": rule,
    }
    keys |= {
        "attack": attack,
        "gradient": "none",
        "norm": "" if attack == "clean" else "l2",
        "epsilon": epsilon,
        "metric": metric,
    }
    return keys | {
        "value": value,
        "low": value - 0.01,
        "high": value + 0.01,
        "n_images": 100,
        "n_seeds": 3,
        "interval": INTERVAL,
    }


def summary(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=SUMMARY_COLUMNS)


def compared(ours: pd.DataFrame, published: Path = PAPER, **settings: Any) -> pd.DataFrame:
    settings = {"published": published.stem} | settings
    return TABLE.select(ours, read_published(published), parse(Settings, settings, "settings of table compare"))


def written(ours: pd.DataFrame, folder: Path, published: Path = PAPER, **settings: Any) -> dict[str, str]:
    parsed = parse(Settings, {"published": published.stem} | settings, "settings of table compare")
    TABLE.write([ours, read_published(published)], parsed, "A caption & more.", folder / "compare")
    return {
        suffix: (folder / f"compare.{suffix}").read_text(encoding="utf-8") for suffix in ("csv", "md", "tex", "html")
    }


def test_a_number_of_ours_lies_inside_if_it_is_within_the_published_interval() -> None:
    """The paper's AlexNet on CIFAR-10: BP and uSF 29 of 32, 0.75 to 0.98; frSF 30 of 32, 0.79 to 0.99."""
    found = compared(summary(row("bp", 0.90), row("usf", 0.70), row("frsf", 0.995))).set_index("rule")
    assert dict(found.lies) == {"bp": "inside", "usf": "outside", "frsf": "outside"}
    assert found.difference["bp"] == pytest.approx(0.90 - 0.9062)
    assert (found.value["bp"], found.low["bp"], found.high["bp"]) == pytest.approx((0.9, 0.89, 0.91))
    assert (found.published_low["bp"], found.published_high["bp"]) == pytest.approx((0.7498, 0.9802), abs=1e-4)
    assert set(found.of) == {165}


def test_error_rates_are_compared_as_accuracies_and_numbers_without_an_interval_lie_nowhere() -> None:
    found = compared(summary(row("fa", 0.87, dataset="fashion_mnist", backbone="lenet5")), BIOTORCH).iloc[0]
    assert (found.published_value, found.lies) == (pytest.approx(0.8694), "inside")
    retrieved = row("bp", 0.8, backbone="vgg16") | {"metric": "map"}
    found = compared(summary(retrieved)).iloc[0]
    assert (found.table, found.published_value, found.lies) == ("table2", pytest.approx(0.852), "-")


def test_attacks_are_compared_at_the_chosen_epsilon_or_not_at_all() -> None:
    attacked = [row("bp", value, attack="boundary", epsilon=size) for size, value in ((1.0, 0.5), (5.0, 0.1))]
    ours = summary(row("bp", 0.9), *attacked)
    found = compared(ours, epsilon_l2=5)
    assert list(zip(found.table, found.value, strict=True)) == [("table1", 0.9), ("table3", 0.1)]
    assert list(compared(ours).table) == ["table1"]
    with pytest.raises(UserError, match=r"no record of attack 'boundary' at epsilon 2; it has \[1.0, 5.0\]"):
        compared(ours, epsilon_l2=2)


def test_a_stand_in_is_named_and_equal_datasets_are_not_talked_about(tmp_path: Path) -> None:
    rules = ("bp", "usf", "frsf", "brsf")
    standing_in = summary(*(row(rule, 0.9, dataset="fashion_5_9") for rule in rules))
    for suffix, text in written(standing_in, tmp_path, datasets={"cifar10": "fashion_5_9"}).items():
        if suffix == "csv":
            assert list(pd.read_csv(tmp_path / "compare.csv").ours_on) == ["fashion_5_9"] * 4
            continue
        for words in (
            "Ours on",
            "CIFAR-10",
            "Stand-ins: Fashion-MNIST 5-9 for CIFAR-10. These are different data",
            "32 (inferred)",
        ):
            assert words in text, suffix
        assert "4 of 165 numbers are compared. Inside: 4 of 4 that have an interval." in text
        assert "n = 100 images x 3 seeds" in text
    text = written(summary(*(row(rule, 0.9) for rule in rules)), tmp_path)["md"]
    assert "Ours on" not in text
    assert "different data" not in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"datasets": {"cifar1": "cifar10"}}, "there is no published dataset 'cifar1'; did you mean 'cifar10'"),
        ({"datasets": {"coco": "cifar"}}, "there is no dataset of ours 'cifar'; did you mean 'cifar10'"),
        ({"datasets": {"coco": ["cifar10"]}}, r"datasets\.coco must be a text, not \['cifar10'\]"),
        ({"datasets": "cifar10"}, "datasets must be keys and values, not 'cifar10'"),
        ({"dataset": {}}, "unknown key 'dataset'; did you mean 'datasets'"),
        (
            {"datasets": {"cifar10": "other"}},
            r"has none of the 165 numbers of 'sign_symmetry'; ours has backbone: alexnet, lenet5",
        ),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        compared(summary(row("bp", 0.9), row("bp", 0.9, dataset="other", backbone="lenet5")), **settings)


def test_the_stage_takes_both_frames_in_order(tmp_path: Path) -> None:
    write_parquet(tmp_path / "summary.parquet", summary(row("bp", 0.9)))
    options = ["--table", "compare", "--output", tmp_path / "compare.csv", "--frame", tmp_path / "summary.parquet"]
    done = stage("make_table", *options, PAPER)
    assert done.returncode == 0, done.stderr
    assert "1 of 165 numbers are compared" in (tmp_path / "compare.md").read_text(encoding="utf-8")
    done = stage("make_table", *options)
    assert (done.returncode, done.stderr) == (2, "error: give --frame 2 file(s), in this order: summary, published\n")
    with pytest.raises(UserError, match="is not a summary"):
        read_frames([PAPER, PAPER], "summary published")


@pytest.mark.slow
def test_the_workflow_makes_the_table_of_the_file_that_its_settings_choose(tmp_path: Path) -> None:
    table = "{published: biotorch, datasets: {fashion_mnist: fashion_5_9}}"
    extended = f"extends: quick\ndescription: compares\ntables: {{compare: {table}}}\n"
    folder = project(tmp_path, chosen=extended, misspelt=extended.replace("biotorch", "biotorhc"))
    done = snakemake(
        folder,
        "-n",
        "--quiet",
        "host",
        "--",
        "results/chosen/tables/compare.csv",
        "results/chosen/tables/published.csv",
    )
    (inputs,) = [line for line in done.stdout.splitlines() if "input:" in line and "biotorch.csv" in line]
    assert inputs.endswith("src/make_table.py, results/chosen/summary.parquet, config/published/biotorch.csv")
    (inputs,) = [line for line in done.stdout.splitlines() if "input:" in line and "sign_symmetry.csv" in line]
    assert inputs.endswith("src/make_table.py, config/published/sign_symmetry.csv")
    done = snakemake(folder, "-n", "--", "results/misspelt/tables/compare.csv")
    assert done.returncode == 2
    assert "unknown published numbers 'biotorhc'; did you mean 'biotorch'?" in done.stdout.splitlines()[-1]
