"""The page on which a report opens."""

from pathlib import Path
from typing import get_args

import jinja2
import pandas as pd
import pytest
from docutils.core import publish_parts
from PIL import Image

from audit_records import AUDIT, MASKED, PLAIN, measured
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.reporting.opening import CLAIM_WORDS, opening, verdicts
from creditflow.verdict.verdicts import audit
from creditflow.verdict.words import ClaimVerdict
from creditflow.workflow.loading import load_experiments
from creditflow.workflow.report import write_report_page
from helpers import ROOT

EXPERIMENT = """
extends: quick
description: A network with {{ braces }} and *stars*
"""


@pytest.fixture(scope="module")
def masked() -> pd.DataFrame:
    return audit(measured("bp", PLAIN) + measured("frsf", MASKED) + measured("usf", MASKED), AUDIT)


def test_verdicts_are_told_in_words_and_numbers(masked: pd.DataFrame) -> None:
    paragraph, sentences = verdicts(masked)
    reference = masked[masked.rule == "bp"].iloc[0]
    assert paragraph.startswith(
        f"**small CNN on toy, epsilon 0.1.** The accuracy of BP, the reference, is {100 * reference.clean:.0f}%"
    )
    assert f"and {100 * reference.worst:.0f}% in the worst case over all attacks." in paragraph
    assert set(CLAIM_WORDS) == set(get_args(ClaimVerdict))
    claim, net = sentences.splitlines()
    claimed = f"{100 * masked[masked.rule == 'frsf'].iloc[0]['accuracy pgd feedback']:.0f}%"
    assert claim.startswith("* Claim of uSF, frSF: *masked*.") and claimed in claim
    assert "PGD, own feedback weights" in claim and "more than half of the advantage" in claim
    assert net == f"* Net effect of uSF, frSF in the worst case: *{masked.net_effect[masked.rule == 'frsf'].iloc[0]}*."


def test_the_page_is_valid_and_has_the_name_the_verdicts_and_the_figure(masked: pd.DataFrame, tmp_path: Path) -> None:
    Image.new("RGB", (200, 200)).save(tmp_path / "f.png")
    Image.effect_noise((300, 300), 90).save(tmp_path / "f.png")  # so large that it takes several lines
    figure = (tmp_path / "f.png", "A |caption|.")
    text = opening("my_name", "What * it _does_", masked, figure, ["1. What happened?"], ["Seeds 0, 1."])
    html = publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
    parts = ['<h1 class="title">my_name</h1>', "What * it _does_.", "<em>masked</em>", "data:image/png;base64,"]
    parts += ["A |caption|.", "What happened?", "Seeds 0, 1."]
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
    without = opening("e", "d", None, None, [], [])
    assert "has no audit" in without and "base64" not in without


def test_a_report_of_an_experiment_opens_on_its_own_page(
    masked: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/quick.yaml").write_bytes((ROOT / "config/experiments/quick.yaml").read_bytes())
    (tmp_path / "experiments/tiny.yaml").write_text(EXPERIMENT, encoding="utf-8")
    experiments = load_experiments(tmp_path / "experiments")
    assert write_report_page(experiments, ["lint", "results/other/tables/a.csv"], Path("results")) is None
    page = write_report_page(experiments, ["results/tiny/figures/audit.svg", "tiny"], Path("results"))
    assert page is not None and page.is_absolute()
    shown = jinja2.Template(page.read_text(encoding="utf-8")).render()
    assert "A network with {{ braces }} and \\*stars\\*." in shown and shown.count("tiny\n====") == 1
    (tmp_path / "results/tiny").mkdir(parents=True)
    masked.attrs = {"identity": {"experiment": "other", "frame": "audit"}}
    files.write_parquet(tmp_path / "results/tiny/audit.parquet", masked)
    with pytest.raises(UserError, match=r"audit\.parquet"):
        write_report_page(experiments, ["tiny"], Path("results"))
