"""What people read is plain English: short sentences, no banned words, no misspelt ones.

The rule is that of the design: whole sentences in the usual order, one idea a sentence. Code, tables and the targets
of links are not looked at. Pages that a generator writes from docstrings are left to the docstrings.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from helpers import ROOT

MOST_WORDS = 30

#: Pages that a generator writes.
GENERATED = {"configuration.md", "command-line.md"}

#: Pages that have not been rewritten by this rule yet. Take a name out when its page is.
PENDING: set[str] = set()

#: Words that these pages do not use, and what they say instead.
BANNED = {
    r"\bleaves\b": "say what is left, or 'accuracy under X is'",
    r"\bhouse\b": "say 'project' or 'design'",
    r"\bfloors?\b": "say 'layer' or 'part'",
    r"\brooms?\b": "say 'package', or 'space' on a disk",
    r"\bwhereof\b|\bthereof\b|\bwherein\b|\bthence\b": "say it in two sentences",
    r"^(Nor|Neither) (is|are|does|do|was|were|has|have)\b": "put the subject before the verb",
    r"^(Were|Had|Should) (it|this|there|a|an|the)\b": "say 'if'",
    r"^(Measured|Taken|Not taken|Relevant|Missing) (is|are)\b": "put the subject before the verb",
    r"\bin doubt of\b|\bfor want of\b|\bsave for\b|\bbut for\b": "say 'without' or 'except for'",
    r"\bdoes without\b|\bgoes? without\b|\bof itself\b": "say what happens",
}

#: Words that a page may use all the same: a room is the design's word for a package of the library.
ALLOWED = {"architecture.md": {r"\brooms?\b"}}

#: Sentences that a reader stumbled over, in part.
STUMBLED_OVER = (
    "or only harder to differentiate",
    "What is left of a claim under every attack",
    "the line that three seeds can draw",
    "leaves none of them anything",
    "V's alone changes nothing",
    "order of the methods does not show",
    "of DTP's cannot change the output",
    "the state at its place",
    "where these agree to the image",
    "In code that is in use",
    "says nothing of the pixels",
)

#: After these a full stop does not end a sentence.
ABBREVIATIONS = re.compile(r"(\b(e\.g|i\.e|al|vs|cf|Fig|Eq|No|Dr|approx)\.)$")

#: A sentence ends before a capital, a number, code, or a name that begins with a small letter.
END = re.compile(r"[.!?][\"')\]*]*(?=\s+[\"'(\[*]*([A-Z0-9`]|[a-z]{1,2}[A-Z]|foolbox))")


def pages() -> list[Path]:
    """Returns README, the tutorial, and the pages of docs/ that people wrote."""
    written = [path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in GENERATED]
    tutorials = sorted((ROOT / "examples").glob("*.ipynb"))
    return [path for path in [ROOT / "README.md", *tutorials, *written] if path.name not in PENDING]


def text_of_page(path: Path) -> str:
    """Returns the Markdown of a page, or of the text cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def text_of(inline: Token) -> str:
    """Returns the text of a paragraph, a heading or an item, with `code` for each piece of code."""
    parts = []
    for child in inline.children or []:
        match child.type:
            case "text":
                parts.append(child.content)
            case "code_inline":
                parts.append("`code`")
            case "softbreak" | "hardbreak":
                parts.append(" ")
            case "image":
                parts.append(child.content)
    return "".join(parts)


def blocks(markdown: str) -> Iterator[str]:
    """Yields the text of each block, without those of tables and code."""
    in_table = False
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type in ("table_open", "table_close"):
            in_table = token.type == "table_open"
        elif token.type == "inline" and not in_table:
            yield text_of(token)


def sentences(block: str) -> Iterator[str]:
    """Yields the sentences of a block. The last one may end without a full stop."""
    start = 0
    for end in END.finditer(block):
        if not ABBREVIATIONS.search(block[start : end.start() + 1]):
            yield block[start : end.end()].strip()
            start = end.end()
    if block[start:].strip():
        yield block[start:].strip()


def n_words(sentence: str) -> int:
    """Returns the number of parts between spaces that hold a letter or a digit."""
    return sum(any(character.isalnum() for character in part) for part in sentence.split())


def all_sentences(path: Path) -> list[str]:
    return [one for block in blocks(text_of_page(path)) for one in sentences(block)]


def test_the_splitter() -> None:
    page = (
        "# A title\n\nOne is 0.5 of `a. B`. Meulemans et al. (2020) say two, e.g. Three.\nIs it (yes!)? `code` ends."
        " [A link](https://x.y/A.B) is *short.* Last\n\n- item one. Item two\n\n"
        "```\nNot. This\n```\n\n| a. B |\n|:--|\n| C. D |\n"
    )
    found = [one for block in blocks(page) for one in sentences(block)]
    assert found == [
        "A title",
        "One is 0.5 of `code`.",
        "Meulemans et al. (2020) say two, e.g. Three.",
        "Is it (yes!)?",
        "`code` ends.",
        "A link is short.",
        "Last",
        "item one.",
        "Item two",
    ]
    assert n_words("Words - with `code`, 0.5 and x-y = 3: eight") == 8


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_sentences_are_short(page: Path) -> None:
    long = {one: n_words(one) for one in all_sentences(page) if n_words(one) > MOST_WORDS}
    assert not long, "\n".join(f"{count} words: {one}" for one, count in long.items())


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_no_banned_words(page: Path) -> None:
    banned = {word: advice for word, advice in BANNED.items() if word not in ALLOWED.get(page.name, set())}
    wrong = [
        f"{one!r}: {advice}" for one in all_sentences(page) for word, advice in banned.items() if re.search(word, one)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_the_sentences_that_readers_stumbled_over_are_gone(page: Path) -> None:
    text = " ".join(text_of_page(page).split())
    assert not [part for part in STUMBLED_OVER if part in text]


def test_spelling() -> None:
    """codespell knows the common misspellings. README counts here, too, and so do docstrings and generated pages."""
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    scripts = [*sorted((ROOT / "src").glob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]
    files = [*pages, *scripts, ROOT / "config", ROOT / "src/creditflow"]
    codespell = shutil.which("codespell", path=str(Path(sys.executable).parent))
    assert codespell, "codespell is among the packages for development: make install"
    done = subprocess.run([codespell, *map(str, files)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
