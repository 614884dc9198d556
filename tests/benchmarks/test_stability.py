"""The table of stability, from the files of a finished experiment to the page."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from creditflow.core.errors import UserError
from creditflow.workflow.loading import load_experiments
from finished_experiment import TINY, made
from helpers import ROOT
from scripts import module_from


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, seeds: list[int]) -> None:
    """Runs the benchmark on a made-up experiment with some seeds; its page is `page.md`."""
    (folder / "experiments").mkdir()
    (folder / "experiments/tiny.yaml").write_text(yaml.safe_dump(TINY | {"seeds": seeds}), encoding="utf-8")
    made(folder, load_experiments(folder / "experiments")["tiny"])
    (folder / "page.md").write_text("before\n<!-- table: stability -->\n<!-- end -->\nafter\n", encoding="utf-8")
    options = {"experiment": "tiny", "experiments": "experiments", "results": "results", "page": "page.md", "halves": 3}
    arguments = [f"--{name}={value if name == 'halves' else folder / str(value)}" for name, value in options.items()]
    arguments[0] = "--experiment=tiny"
    monkeypatch.setattr(sys, "argv", ["stability.py", *arguments])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    module_from("benchmarks/stability.py").main()


def test_the_table_has_a_row_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, monkeypatch, [0, 1, 2, 3])
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    head, first, second, last = rows[0], *rows[2:]
    assert head[:6] == [
        *("rule", "epsilon", "question", "whole run"),
        *("triples (4): contradict", "triples (4): unresolved"),
    ]
    assert head[6:] == [
        *("halves (3): contradict", "halves (3): unresolved"),
        *("first and second half (2): contradict", "first and second half (2): unresolved"),
    ]
    # All seeds are alike, so that no triple says anything else. Twenty images tell nothing of the net effect.
    assert first[:6] == ["frSF", "0.1", "claim", "masked", "0.0", "0.0"]
    assert second == ["frSF", "0.1", "net effect", "unresolved", *[""] * 6]
    assert last[:6] == ["all", "", "", "", "0.0", "0.0"]
    assert page.startswith("before\n") and page.endswith("\nafter\n")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["triples_contradict"] == 0


def test_three_seeds_are_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="stability needs more than 3 seeds"):
        run(tmp_path, monkeypatch, [0, 1, 2])
