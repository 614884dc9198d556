"""The numbers of README: they are those of the tables, in short sentences, and mistakes are explained."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from creditflow.core.errors import UserError
from creditflow.reporting.readme import with_numbers
from creditflow.reporting.results_page import read_papers
from helpers import ROOT, stage

NUMBER = {"table": "audit", "where": {"rule": "frsf"}, "column": "worst", "form": "percent"}
ENTRY: dict[str, Any] = {
    "title": "A title",
    "link": "https://example.org",
    "claim": "It is robust.",
    "measured": "The worst\ncase is {worst}%.",
    "verdict": "masked",
    "experiment": "tiny",
    "numbers": {"worst": NUMBER},
    "figure": {"name": "audit", "text": "a plot", "caption": "At worst, {worst}%."},
}
PAPER: dict[str, Any] = {"title": "A paper", "claims": [], "elsewhere": []}
MARKS = "before\n<!-- numbers: figure -->\nold\n<!-- end -->\n<!-- numbers: papers -->\n<!-- end -->\nafter\n"


def results(folder: Path, *entries: dict[str, Any]) -> Path:
    """Writes a folder of exported results below `folder`, and returns it."""
    for path, content in (("tables/audit.csv", "rule,worst\nfrsf,0.035\n"), ("figures/audit.png", "")):
        (folder / "kept/tiny" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "kept/tiny" / path).write_text(content, encoding="utf-8")
    papers = [PAPER, *(PAPER | {"readme": entry} for entry in entries)]
    (folder / "kept/claims.yaml").write_text(yaml.safe_dump(papers), encoding="utf-8")
    return folder / "kept"


def test_readme_in_the_repository_is_what_the_tables_say() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_numbers(text, ROOT / "README.md", ROOT / "docs/results") == text


def test_sentences_of_the_entries_are_short() -> None:
    entries = [paper["readme"] for paper in read_papers(ROOT / "docs/results") if "readme" in paper]
    assert len(entries) == 4
    for entry in entries:
        texts = [entry["claim"], entry["measured"], entry["verdict"], entry.get("figure", {}).get("caption", "")]
        for sentence in re.split(r"(?<=[.:;]) ", " ".join(texts)):
            assert len(sentence.split()) <= 30, sentence


def test_picture_and_table_take_the_place_of_what_was_there(tmp_path: Path) -> None:
    results(tmp_path, ENTRY)
    readme = tmp_path / "README.md"
    readme.write_text(MARKS, encoding="utf-8")
    for _ in range(2):  # a second time changes nothing
        done = stage("write_page", "--folder", tmp_path / "kept", "--readme", readme)
        assert done.returncode == 0, done.stderr
        assert readme.read_text(encoding="utf-8") == (
            "before\n<!-- numbers: figure -->\n![a plot](kept/tiny/figures/audit.png)\n\nAt worst, 3.5%.\n"
            "<!-- end -->\n<!-- numbers: papers -->\n| Paper | It claims | We measured | Verdict |\n|:--|:--|:--|:--|\n"
            "| [A title](https://example.org) | It is robust. | The worst case is 3.5%."
            " [tiny](kept/tiny/README.md) | masked |\n<!-- end -->\nafter\n"
        )


@pytest.mark.parametrize(
    ("entries", "text", "message"),
    [
        ([ENTRY], "", "README.md has no place for its numbers: write <!-- numbers: figure --> and <!-- end --> there"),
        ([], MARKS, "0 entries `readme` have a `figure`; give it to one"),
        ([ENTRY, ENTRY], MARKS, "2 entries `readme` have a `figure`; give it to one"),
        ([ENTRY | {"measured": "{best}"}], MARKS, "paper 2, readme: 'best' is either not in the text or not under"),
        ([ENTRY | {"verdict": "3 points remain"}], MARKS, "paper 2, readme: the verdict has a number of its own"),
        ([ENTRY | {"extra": 1}], MARKS, "paper 2, readme: expected the keys"),
        ([ENTRY | {"figure": {"name": "audit"}}], MARKS, "paper 2, readme: expected the keys caption, name, text"),
        (
            [ENTRY | {"figure": ENTRY["figure"] | {"name": "absent"}}],
            MARKS,
            r"readme: .*absent\.png is missing; export tiny first",
        ),
    ],
)
def test_mistakes_are_explained(entries: list[dict[str, Any]], text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        with_numbers(text, tmp_path / "README.md", results(tmp_path, *entries))
