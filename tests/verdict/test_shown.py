"""What a reader sees of an audit."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from PIL import ImageFont

from audit_records import AUDIT, MASKED, N_IMAGES, PLAIN, measured
from creditflow.core import plugins
from creditflow.core.settings import NoSettings
from creditflow.reporting.figure import Figure, write_figure
from creditflow.reporting.listing import Listing
from creditflow.reporting.tables.audit import select, show
from creditflow.verdict.verdicts import audit


@pytest.fixture(scope="module")
def shown() -> pd.DataFrame:
    guards = {"apgd_dlr exact": {"zero_gradients": 0.5}}
    records = measured("bp", PLAIN) + measured("frsf", MASKED) + measured("usf", MASKED, seeds=(0, 1), checks=guards)
    return audit(records, AUDIT)


def written(name: str, shown: pd.DataFrame, folder: Path) -> dict[str, str]:
    table: Listing = plugins.load("table", name).TABLE
    table.write([shown], plugins.settings_class("table", name)(), "A caption & more.", folder / name)
    return {
        suffix: (folder / f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "tex", "html", "csv")
    }


@pytest.mark.parametrize(
    "name", [name for name in plugins.names("table") if plugins.declared("table", name, "source", "summary") == "audit"]
)
def test_the_audits_tables_name_each_rule(name: str, shown: pd.DataFrame, tmp_path: Path) -> None:
    texts = written(name, shown, tmp_path)
    for suffix in ("md", "tex", "html"):
        assert all(rule in texts[suffix] for rule in ("BP", "frSF", "uSF"))
    assert len(pd.read_csv(tmp_path / f"{name}.csv")) == len(shown)


def test_the_audits_table_says_what_it_says(shown: pd.DataFrame, tmp_path: Path) -> None:
    texts = written("audit", shown, tmp_path)
    row = shown[shown.rule == "frsf"].iloc[0]
    percent = {name: 100 * row[name] for name in ("difference", "low", "high", "lost_share", "lost_low", "lost_high")}
    net = "{difference:+.1f} ({low:+.1f} to {high:+.1f})".format(**percent)
    lost = "{lost_share:.0f}\\% ({lost_low:.0f} to {lost_high:.0f})".format(**percent)
    assert net in texts["md"] and lost in texts["tex"] and f"{100 * row.reference_clean:.1f}" in texts["md"]
    for words in ("masked", "no difference beyond 5 points", "unresolved", f"{N_IMAGES} images x 3 seeds (uSF: 2)"):
        assert words in texts["md"] and words in texts["html"]
    for words in ("Claim: PGD, own feedback weights.", "multiplied by the number of comparisons (2); margin 5 points"):
        assert words in texts["md"]
    assert "With fewer than 3 seeds the words speak of these networks only." in texts["md"]
    assert width_in_pixels(shown) <= 1200


def width_in_pixels(shown: pd.DataFrame) -> float:
    """The width of the page with the table of one dataset and network, in a wide font; no cell is wrapped there."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    head, body = (ImageFont.truetype(fonts / f"{name}.ttf", 13) for name in ("DejaVuSans-Bold", "DejaVuSans"))
    cells = show(select(shown, NoSettings()), NoSettings())
    widths = [max(head.getlength(name), *(body.getlength(text) for text in cells[name])) for name in cells]
    padding, margin = 2 * 0.6 * 13, 2 * 2 * 13  # the page's style
    return sum(widths) + len(widths) * padding + margin


def test_a_loss_stands_beside_the_word_masked(tmp_path: Path) -> None:
    strong = {name: share + 0.4 for name, share in PLAIN.items()}
    weak = {name: share - 0.27 for name, share in strong.items()} | {"pgd feedback": 0.9}
    frame = audit(measured("bp", strong) + measured("frsf", weak), AUDIT)
    texts = written("audit", frame, tmp_path)
    for suffix in ("md", "tex", "html"):
        line = texts[suffix][texts[suffix].index("frSF") :]
        assert "masked" in line.split("less robust")[0]
    assert list(frame.claim_verdict)[1:] == ["masked"] and list(frame.net_effect)[1:] == ["less robust"]
    axes = plugins.load("figure", "audit").FIGURE.draw(frame, NoSettings()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["reference", "claim: masked\nnet: less robust", "verdict"]


def test_the_guards_table_says_why(shown: pd.DataFrame, tmp_path: Path) -> None:
    text = written("audit_guards", shown, tmp_path)["md"]
    line = next(line for line in text.splitlines() if "uSF" in line)
    assert "zero gradients (APGD-DLR, exact gradient)" in line
    assert "uSF: no attack that the logits' scale can't blind without a fired guard" in line
    assert "(APGD-DLR, exact gradient: zero gradients" in line
    square = 100 * shown["accuracy square none"][shown.rule == "usf"].iloc[0]
    assert "APGD-DLR, exact gradient: " in line and f"Square: {square:.1f}" in line
    assert "none" in next(line for line in text.splitlines() if "frSF" in line)


def test_the_audits_figure_is_drawn_alike_from_equal_numbers(shown: pd.DataFrame, tmp_path: Path) -> None:
    figure: Figure = plugins.load("figure", "audit").FIGURE
    for name in ("one", "two"):
        write_figure(figure, shown, NoSettings(), tmp_path / name)
    for suffix in ("pdf", "svg", "png"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()
    panels = figure.draw(shown, NoSettings()).axes
    assert [axes.get_title() for axes in panels] == ["epsilon 0.1"]
    compared = shown[shown.net_effect != ""]
    words = {f"claim: {row.claim_verdict} net: {row.net_effect}" for row in compared.itertuples()}
    shown_words = {" ".join(text.get_text().split()) for axes in panels for text in axes.texts}
    assert shown_words == words | {"reference", "verdict"}
