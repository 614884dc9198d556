"""What rules declare for tables and figures, read without importing them."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from creditflow.core import plugins
from creditflow.reporting.names import display
from creditflow.reporting.rules import rule_order, rule_style, rule_title, transported_bits, without_matched
from helpers import ROOT

RULES = sorted({*plugins.names("rule"), *plugins.names("update_rule")})

#: The order of the papers' tables, oldest paper of this project first.
PAPERS = [
    *("bp", "usf", "frsf", "brsf", "fa", "dfa", "wm", "kp", "sal", "pepita"),
    *("dfa_targets", "dtp", "dtp_pretrained", "dtpdrl", "ddtp_linear", "ddtp_rhl", "ddtp_control", "gnt"),
]


def test_rules_stand_in_the_papers_order_and_others_follow_by_their_ids() -> None:
    assert rule_order({*RULES, "zebra", "new_rule"}) == [*PAPERS, "new_rule", "zebra"]


def test_titles_are_the_papers_and_an_unknown_id_is_its_own_title() -> None:
    assert [display(rule) for rule in ("bp", "usf", "frsf", "brsf")] == ["BP", "uSF", "frSF", "brSF"]
    assert rule_title("dtp_pretrained") == "DTP (pre-trained)"
    assert rule_title("dfa_targets") == rule_title("dfa") == "DFA"
    assert rule_title("new_rule") == display("new_rule") == "new_rule"


def test_transported_bits_are_those_of_the_feedback_path() -> None:
    known = {"bp": 32, "usf": 1, "frsf": 1, "brsf": 1, "fa": 0, "dfa": 0, "wm": 0, "kp": 0}
    assert {rule: transported_bits(rule) for rule in RULES} == dict.fromkeys(RULES) | known
    assert transported_bits("new_rule") is None


@pytest.mark.parametrize(
    ("kind", "rule"), [(kind, rule) for kind in ("rule", "update_rule") for rule in plugins.names(kind)]
)
def test_what_is_read_from_the_text_is_what_the_rule_has(kind: str, rule: str) -> None:
    """This also holds a rule that is implemented in both rooms to one title, place and style."""
    declared = plugins.load(kind, rule).RULE
    assert declared.title == rule_title(rule) == display(rule)
    assert {"color": declared.color, "marker": declared.marker} == rule_style(rule, [rule])
    alone = [other for other in RULES if other != rule]
    place = PAPERS.index(rule)
    assert declared.order == plugins.declared(kind, rule, "order")
    assert rule_order([*alone, rule]).index(rule) == place


def test_rules_without_a_style_share_the_spare_ones_in_their_order() -> None:
    rules = ["bp", "x", "frsf", "y", "z"]
    styles = [rule_style(rule, rules) for rule in ("x", "y", "z")]
    assert styles[0] == styles[2] != styles[1]
    assert all(style not in styles[:2] for style in (rule_style(rule, rules) for rule in ("bp", "frsf")))


def test_a_new_rule_needs_none_of_these_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / plugins.ROOMS["rule"]
    folder.mkdir(parents=True)
    (tmp_path / plugins.ROOMS["update_rule"]).mkdir(parents=True)
    (folder / "plain.py").write_text("RULE = Rule(feedback_weight=feedback_weight)\n", encoding="utf-8")
    (folder / "described.py").write_text(
        'RULE = Rule(feedback_weight=f, title="dSF", order=1, color="red", marker="x", transported_bits=2)\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(plugins, "_PACKAGE", tmp_path)
    assert rule_order(["plain", "described"]) == ["described", "plain"]
    assert (rule_title("plain"), rule_title("described")) == ("plain", "dSF")
    assert (transported_bits("plain"), transported_bits("described")) == (None, 2)
    assert rule_style("described", ["plain", "described"]) == {"color": "red", "marker": "x"}
    assert rule_style("plain", ["plain", "described"])["color"].startswith("#")


def test_reading_these_facts_imports_no_torch() -> None:
    code = (
        "import sys; from creditflow.reporting.rules import rule_order, rule_title; rule_order(['sal', 'bp']);"
        " assert rule_title('sal') == 'SAL'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


def test_figures_of_rules_leave_out_networks_that_are_matched_in_accuracy() -> None:
    rows = pd.DataFrame({"rule": ["bp", "bp_matched_fa", "fa", "bp_head_only"], "value": [0, 1, 2, 3]})
    assert list(without_matched(rows).rule) == ["bp", "fa"]
    assert rule_order(rows.rule) == ["bp", "bp_head_only", "fa", "bp_matched_fa"]
    assert [rule_title(rule) for rule in rows.rule[[1, 3]]] == ["BP, as accurate as FA", "BP, head only"]
    assert list(without_matched(rows[:0]).columns) == ["rule", "value"]
