"""What people read is plain English: short sentences, no banned words, no misspelt ones.

The rule is that of the design: whole sentences in the usual order, one idea a sentence. Code and the targets of links
are not looked at. Pages that are written from docstrings, the texts of claims.yaml, and what an export says are held to
the rule, too.
"""

import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from creditflow.core import plugins
from creditflow.reporting.export import readme
from creditflow.reporting.finished import Finished
from helpers import ROOT

MOST_WORDS = 30

#: Names of texts that are no files: the page of an export, without tables and figures, and the captions of all of them.
EXPORT, CAPTIONS = "page of an export", "captions"

#: Keys of claims.yaml whose values nobody reads as sentences.
NO_TEXT = {"numbers", "command"}

#: Kinds of plugins whose docstring is the caption of what they make.
KINDS = ("table", "figure")

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
ALLOWED = {"docs/architecture.md": {r"\brooms?\b"}}

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


def pages() -> list[str]:
    """Returns the names of all texts: pages of the project, of its folders and of docs/, the tutorial, and the rest."""
    patterns = ("*.md", "docs/*.md", "examples/*.ipynb", "[!.]*/README.md", "config/*/README.md")
    files = [path.relative_to(ROOT).as_posix() for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    written = [name for name in files if not name.startswith("build/")]
    return [*written, "docs/results/README.md", "docs/results/claims.yaml", EXPORT, CAPTIONS]


@functools.cache
def text_of_page(name: str) -> str:
    """Returns the Markdown of a page, of the text cells of a notebook, or of all texts of claims.yaml."""
    if name == EXPORT:
        return page_of_an_export()
    if name == CAPTIONS:
        return "\n\n".join(plugins.docstring(kind, name) for kind in KINDS for name in plugins.built_in_names(kind))
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".yaml"):
        return "\n\n".join(texts_within(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))
    if name.endswith(".ipynb"):
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    return text


def texts_within(node: Any) -> Iterator[str]:
    """Yields each text in mappings and lists, except for those that are no sentences."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        yield from (text for key in node.keys() - NO_TEXT for text in texts_within(node[key]))
    elif isinstance(node, list):
        yield from (text for part in node for text in texts_within(part))


def page_of_an_export() -> str:
    """Returns the page of an experiment without tables and figures, with everything that such a page can say."""
    experiment = Finished("tiny", "Two rules", Path("tiny"), {}, [], [], [], {}, keys_of=lambda path: {})
    made = {"seeds": [0, 1], "source_hashes": ["a", "b"], "git_commits": ["c-dirty"], "versions": {"torch": ["2.9"]}}
    made |= {name: ["d"] for name in ("devices", "processors", "instruction_sets", "threads", "containers")}
    facts: dict[str, Any] = made | {"records": 8, "wall_time_s": 9.0, "earliest_start": "today", "latest_start": "now"}
    training = {"git_commits": ["c"], "source_hashes": ["a"]}
    return "\n\n".join(readme(experiment, facts | {"trained": training | {"trainings": n}}, Path()) for n in (0, 1))


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
    """Yields the text of each block and of each cell of a table, without those of code."""
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "inline":
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


@functools.cache
def all_sentences(name: str) -> list[str]:
    return [sentence for block in blocks(text_of_page(name)) for sentence in sentences(block)]


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
        *("a.", "B", "C.", "D"),
    ]
    assert n_words("Words - with `code`, 0.5 and x-y = 3: eight") == 8


@pytest.mark.parametrize("page", pages())
def test_sentences_are_short(page: str) -> None:
    long = {one: n_words(one) for one in all_sentences(page) if n_words(one) > MOST_WORDS}
    assert not long, "\n".join(f"{count} words: {one}" for one, count in long.items())


def test_readme_is_read_in_a_minute_or_two() -> None:
    """Tables and captions count; commands and code do not."""
    assert sum(map(n_words, all_sentences("README.md"))) <= 700


@pytest.mark.parametrize("page", pages())
def test_no_banned_words(page: str) -> None:
    banned = {word: advice for word, advice in BANNED.items() if word not in ALLOWED.get(page, set())}
    wrong = [
        f"{one!r}: {advice}" for one in all_sentences(page) for word, advice in banned.items() if re.search(word, one)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", pages())
def test_the_sentences_that_readers_stumbled_over_are_gone(page: str) -> None:
    text = " ".join(text_of_page(page).split())
    assert not [part for part in STUMBLED_OVER if part in text]


def test_spelling() -> None:
    """codespell knows the common misspellings. Docstrings count here, too."""
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "docs/results/claims.yaml"]
    scripts = [*sorted((ROOT / "src").glob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]
    files = [*pages, *scripts, ROOT / "config", ROOT / "src/creditflow"]
    codespell = shutil.which("codespell", path=str(Path(sys.executable).parent))
    assert codespell, "codespell is among the packages for development: make install"
    done = subprocess.run([codespell, *map(str, files)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
