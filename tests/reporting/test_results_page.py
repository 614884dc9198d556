"""The page of results: it is what its claims and the exported tables say, and mistakes in the claims are explained."""

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from scipy.stats import binom

from creditflow.core.errors import UserError
from creditflow.reporting.export_seal import check_exported, write_export_seal
from creditflow.reporting.results_page import results_page
from helpers import ROOT, stage

NUMBER = {"table": "audit", "where": {"rule": "frsf", "epsilon": 0.1}, "column": "worst", "form": "percent"}
CLAIM = {
    "claim": "It is robust",
    "data": "digits",
    "experiment": "tiny",
    "measured": "The worst case is {worst}%.",
    "numbers": {"worst": NUMBER},
    "verdict": "masked",
}
PAPER = {"title": "A paper", "claims": [CLAIM], "elsewhere": [{"what": "the rest", "command": "snakemake rest"}]}


def test_the_page_in_the_repository_is_what_its_tables_say() -> None:
    assert (ROOT / "docs/results/README.md").read_text(encoding="utf-8") == results_page(ROOT / "docs/results")


def page(folder: Path, papers: Any) -> str:
    (folder / "tiny/tables").mkdir(parents=True)
    (folder / "tiny/tables/audit.csv").write_text(
        "rule,epsilon,worst,verdict\nfrsf,0.1,0.035,masked\nfrsf,0.3,0,masked\nbp,0.1,0.02,\n", encoding="utf-8"
    )
    (folder / "claims.yaml").write_text(yaml.safe_dump(papers), encoding="utf-8")
    return results_page(folder)


def test_numbers_come_from_the_tables(tmp_path: Path) -> None:
    claim = CLAIM | {"verdict": "{verdict}", "measured": "{worst}, {points}, {plain}"}
    claim["numbers"] = {"worst": NUMBER, "points": NUMBER | {"form": "points"}, "plain": NUMBER | {"form": "number"}}
    claim["numbers"] |= {"verdict": NUMBER | {"column": "verdict", "form": "text"}}  # type: ignore[operator]
    text = page(tmp_path, [PAPER | {"claims": [claim]}])
    assert "| It is robust | 3.5, +3.5, 0.035 | digits; [tiny](tiny/README.md) | masked |" in text
    assert "- the rest: `snakemake rest`" in text and "## A paper" in text
    done = stage("write_page", "--folder", tmp_path)
    assert done.returncode == 0 and (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_what_a_paper_says_against_itself(tmp_path: Path) -> None:
    entry = {"says": "All are robust.", "against": "Table 1 has {worst}%.", "experiment": "tiny"}
    entry |= {"numbers": {"worst": NUMBER}}
    paper = PAPER | {"note": "Read\nthis first.", "against_itself": [entry]}
    text = page(tmp_path / "whole", [paper])
    assert "\n\nRead this first.\n\n| Claimed |" in text
    table = "### What the paper says against itself\n\n| It says | Against that |\n|:--|:--|\n"
    assert f"\n\n{table}| All are robust. | Table 1 has 3.5%. |\n\nNot run here" in text
    for wrong in (entry | {"numbers": {}}, {"says": "All are robust."}):
        with pytest.raises(UserError, match=r"paper 1, contradiction 1: ('worst' is either not|expected the keys)"):
            page(tmp_path / f"wrong{len(wrong)}", [PAPER | {"against_itself": [wrong]}])


def test_a_number_of_another_experiment(tmp_path: Path) -> None:
    (tmp_path / "other/tables").mkdir(parents=True)
    (tmp_path / "other/tables/audit.csv").write_text("rule,epsilon,worst\nfrsf,0.1,0.75\n", encoding="utf-8")
    claim = CLAIM | {"numbers": {"worst": NUMBER | {"experiment": "other"}}}
    assert "The worst case is 75.0%." in page(tmp_path, [PAPER | {"claims": [claim]}])


def test_what_the_page_computes_from_the_sign_symmetry_papers_tables() -> None:
    """Probabilities of torchvision's accuracies on 32 images, multiples of 1/32, and cells above their clean ones."""
    text = (ROOT / "docs/results/README.md").read_text(encoding="utf-8")
    published = pd.read_csv(ROOT / "docs/results/quick/tables/published.csv")
    tables = published[published.metric.isin(["accuracy", "robust_accuracy"])]
    assert len(tables) == 120
    assert "Tables 1, 3 and 4 have 120 accuracies. All except one (3.15, in Table 4) are multiples of 1/32" in text
    thirty_seconds = (tables.percent * 32 / 100).round() * 100 / 32
    digits = tables.percent.map(lambda value: len(f"{value:g}".partition(".")[2])).clip(lower=1)
    assert tables.percent[(tables.percent - thirty_seconds).abs() >= 10.0**-digits].tolist() == [3.15]

    weights = {"alexnet": 0.56522, "resnet18": 0.69758, "vgg16": 0.71592}  # torchvision's IMAGENET1K_V1, top-1
    cells = tables[(tables.table == "table1") & (tables.dataset == "imagenet") & (tables.rule == "bp")]
    right = (cells.set_index("backbone").percent * 32 / 100).round()
    first, second, third = (f"{binom.sf(right[name] - 1, 32, chance):.2g}" for name, chance in weights.items())
    assert f"has a probability of {first}, {second} and {third} (binomial, one-sided)" in text

    coco = tables[tables.dataset == "coco"].pivot_table(index=["backbone", "rule"], columns="table", values="percent")
    above = sum(int((coco[attacked] > coco.table1 + 0.1).sum()) for attacked in ("table3", "table4"))
    assert f"In {above} of the {2 * len(coco)} cells of MS-COCO accuracy is higher under attack" in text


def test_a_figure_is_shown_if_it_was_exported(tmp_path: Path) -> None:
    paper = PAPER | {"figure": {"experiment": "tiny", "name": "audit", "caption": "What it shows."}}
    with pytest.raises(UserError, match=r"paper 1, figure: .*audit\.png is missing; export tiny first"):
        page(tmp_path / "without", [paper])
    (tmp_path / "with/tiny/figures").mkdir(parents=True)
    (tmp_path / "with/tiny/figures/audit.png").touch()
    assert "\n\n![audit of tiny](tiny/figures/audit.png)\n\nWhat it shows.\n\n" in page(tmp_path / "with", [paper])


@pytest.mark.parametrize(
    ("number", "claim", "message"),
    [
        ({"table": "table9"}, {}, "table9.csv is missing; export tiny first"),
        ({"table": ["audit"]}, {}, r"paper 1, claim 1, worst: table must be a text, found \['audit'\]"),
        ({"where": ["rule"]}, {}, "paper 1, claim 1, worst: where must be a mapping, found"),
        ({"where": {True: "usf"}}, {}, "worst: where: True is no text"),
        ({}, {"numbers": {True: NUMBER}}, "paper 1, claim 1: numbers: True is no text"),
        ({}, {"numbers": None}, "paper 1, claim 1: numbers must be a mapping, found None"),
        ({}, {"measured": 5}, "paper 1, claim 1: measured must be a text, found 5"),
        ({}, {"measured": "{worst} {not a name}"}, "a brace encloses no name: '{not a name}'; write {name}, with"),
        ({}, {"measured": "{worst} {0!r}"}, "a brace encloses no name: '{0!r}'"),
        ({"column": "best"}, {}, "has no column 'best'; it has rule, epsilon, worst, verdict"),
        ({"where": {"rule": "frsf"}}, {}, "2 rows of .* fit, not one"),
        ({"where": {"rule": "usf"}}, {}, "0 rows of .* fit, not one"),
        ({"form": "roman"}, {}, "form must be one of percent, points, number, text, not 'roman'"),
        (
            {},
            {"measured": "The worst case is {wurst}%."},
            "paper 1, claim 1: 'worst' is either not in the text or not under `numbers`",
        ),
        (
            {},
            {"verdict": "masked, 3 points remain"},
            "paper 1, claim 1: the verdict has a number of its own; name one under `numbers`",
        ),
        ({}, {"verdict": None, "extra": 1}, "paper 1, claim 1: expected the keys .* found .*extra"),
    ],
)
def test_mistakes_in_claims_are_explained(
    number: dict[str, Any], claim: dict[str, Any], message: str, tmp_path: Path
) -> None:
    wrong = CLAIM | {"numbers": {"worst": NUMBER | number}} | claim
    with pytest.raises(UserError, match=message):
        page(tmp_path, [PAPER | {"claims": [wrong]}])


@pytest.mark.parametrize(
    ("papers", "message"), [({}, "expected a list of papers"), ([{"title": "t"}], "paper 1: expected the keys")]
)
def test_claims_that_are_no_list_of_papers_are_explained(papers: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        page(tmp_path, papers)


def test_an_exported_table_is_verified_before_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page(tmp_path, [PAPER])
    assert "tiny/provenance.json has no hashes of files; export tiny again" in capsys.readouterr().err
    write_export_seal(tmp_path / "tiny", {"experiment": "tiny"})
    results_page(tmp_path)
    assert "no hashes" not in capsys.readouterr().err
    table, provenance = tmp_path / "tiny/tables/audit.csv", tmp_path / "tiny/provenance.json"
    whole, sealed = table.read_text(encoding="utf-8"), provenance.read_text(encoding="utf-8")
    table.write_text(whole.replace("0.035", "0.935"), encoding="utf-8")
    with pytest.raises(UserError, match=r"audit\.csv is damaged, was edited, .* another hash; export tiny again"):
        results_page(tmp_path)
    table.write_text(whole, encoding="utf-8")
    provenance.write_text(sealed.replace('"tiny"', '"other"'), encoding="utf-8")
    with pytest.raises(UserError, match=r"provenance\.json is damaged or was edited"):
        results_page(tmp_path)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("what", ["table", "figure"])
def test_the_export_of_another_experiment_is_not_shown(what: str, sealed: bool, tmp_path: Path) -> None:
    """A whole export, sealed or of an earlier version, that lies in the folder of another."""
    page(tmp_path, [PAPER])
    facts = {"experiment": "other"}
    if sealed:
        (tmp_path / "tiny/figures").mkdir()
        (tmp_path / "tiny/figures/f.png").write_bytes(b"a picture")
        write_export_seal(tmp_path / "tiny", facts)
    else:
        (tmp_path / "tiny/provenance.json").write_text(json.dumps(facts), encoding="utf-8")
    with pytest.raises(UserError, match=r"tiny has the export of experiment other, where that of tiny belongs; export"):
        if what == "table":
            results_page(tmp_path)
        else:
            check_exported(tmp_path / "tiny/figures/f.png", tmp_path / "tiny")


def test_tables_of_one_export_that_change_places_are_not_shown(tmp_path: Path) -> None:
    page(tmp_path, [PAPER])
    tables = tmp_path / "tiny/tables"
    (tables / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    write_export_seal(tmp_path / "tiny", {"experiment": "tiny"})
    results_page(tmp_path)
    shutil.copyfile(tables / "other.csv", tables / "audit.csv")
    with pytest.raises(UserError, match=r"audit\.csv is damaged, was edited, or is not of this export"):
        results_page(tmp_path)
