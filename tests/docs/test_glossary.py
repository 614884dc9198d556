"""The glossary explains what the code has: each rule, attack, word of a verdict, gradient and guard; and nothing else.

The pages that it links to are there, with the headings that it names. The same is true of the page of papers.
"""

import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from creditflow.core.gradients import SURROGATES
from creditflow.core.plugins import built_in_names
from creditflow.derivatives.report import Verdict
from creditflow.records import guards
from creditflow.verdict.words import ClaimVerdict
from helpers import ROOT

GLOSSARY = ROOT / "docs/glossary.md"
PAPERS = ROOT / "docs/papers.md"

#: The words of a net effect; the last one is followed by the margin.
NET_EFFECTS = ("more robust", "less robust", "unresolved", "no difference beyond")

#: Gradients that an attacker may use, as `core/gradients.py` names them.
GRADIENTS = ("exact", "own", "feedback", "through:<rule>", "none", *(f"surrogate:{name}" for name in SURROGATES))

#: Guards that compare two attacks, by the words that all of them have.
COMPARING = ("weaker than", "stronger than white-box")


@cache
def entries() -> dict[str, tuple[list[str], str]]:
    """Returns, by its term, each entry's ids and its text."""
    text = GLOSSARY.read_text(encoding="utf-8")
    found: dict[str, tuple[list[str], str]] = {}
    for item in re.split(r"\n(?=- \*\*)|\n\n", text):
        if match := re.match(r"- \*\*([^*]+)\*\*(?: \(([^)]*`)\))?: (.+)", " ".join(item.split())):
            term, ids, said = match.groups()
            assert term not in found, term
            found[term] = (re.findall(r"`([^`]+)`", ids or ""), said)
    return found


def ids() -> list[str]:
    return [name for names, _ in entries().values() for name in names]


@pytest.mark.parametrize("kind", ["rule", "update_rule", "attack", "hash_attack"])
def test_every_plugin_has_an_entry(kind: str) -> None:
    assert [name for name in built_in_names(kind) if name not in ids()] == []


def test_every_word_and_guard_has_an_entry() -> None:
    words = {*get_args(ClaimVerdict), *get_args(Verdict), *NET_EFFECTS}
    terms = {term.lower() for term in entries()}
    assert {word for word in words - {"surrogate"} if word not in ids()} == set()
    assert "surrogate, as a verdict" in terms
    assert [name for name in GRADIENTS if name not in ids()] == []
    assert [name for name in (*guards.LIMITS, *guards._FLAGS) if name not in ids()] == []
    spelled = [guards.in_words(name) for name in (*guards.LIMITS, *guards._FLAGS)] + list(COMPARING)
    assert [name for name in spelled if name not in terms] == []


def test_every_entry_is_a_sentence_or_two() -> None:
    assert len(entries()) > 120
    for term, (_, said) in entries().items():
        plain = re.sub(r" \(\[[^\]]+\]\([^)]+\)\)(?=\.)", "", said)
        assert re.fullmatch(r'["`A-Z].+\.', plain), term
        assert len(re.findall(r"[.:;] ", said)) <= 3, term


@cache
def elsewhere() -> str:
    """Returns the text of the sources and of all pages but the glossary."""
    paths = [*(ROOT / "src").rglob("*.py"), *(ROOT / "config").rglob("*.yaml"), *(ROOT / "docs").glob("*.md")]
    paths += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config/README.md"]
    texts = [path.read_text(encoding="utf-8") for path in paths if path != GLOSSARY]
    return " ".join(" ".join(texts).split())


def test_no_entry_is_orphaned() -> None:
    """Each term or one of its ids is used elsewhere: in the code, or on a page."""
    text = elsewhere()
    lower = text.lower()
    unused = []
    for term, (names, _) in entries().items():
        parts = re.split(r", as a verdict|, | and ", term)
        used = any(part in text if part.isupper() else part.lower() in lower for part in (term, *parts))
        if not used and not any(name in text for name in names):
            unused.append(term)
    assert unused == []


def anchors(page: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", [GLOSSARY, PAPERS], ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        other = (path.parent / name).resolve() if name else path
        assert other.exists(), target
        assert not anchor or anchor in anchors(other.read_text(encoding="utf-8")), target


def test_papers_name_every_rule_and_attack() -> None:
    """Each rule, attack and dataset is said to come from a paper, but for those that are ours."""
    named = re.findall(r"`([a-z0-9_]+)`", PAPERS.read_text(encoding="utf-8"))
    ours = {"hamming_pgd", "cascade", "image_folder", "small_cnn", "mlp", "from_factory"}
    target_propagation = {"dtp_pretrained", "dtpdrl", "ddtp_linear", "ddtp_rhl", "ddtp_control", "gnt", "sal"}
    kinds = ("rule", "update_rule", "attack", "hash_attack", "dataset", "backbone")
    names = {name for kind in kinds for name in built_in_names(kind)}
    assert names - set(named) - ours - target_propagation == set()


def test_links_of_papers_have_the_form_of_their_kind() -> None:
    text = PAPERS.read_text(encoding="utf-8")
    for label, target in re.findall(r"\[((?:arXiv|doi):[^\]]+)\]\(([^)]+)\)", text):
        kind, _, number = label.partition(":")
        assert target == {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}[kind] + number
    assert len(re.findall(r"arXiv:\d{4}\.\d{4,5}\]", text)) >= 40
