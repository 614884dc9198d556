"""The page of troubleshooting quotes what is really said: each message is in the code, or is somebody else's.

That the advice helps was tried by hand, row by row; the cases that tests cause are in the other files of this folder.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import ROOT

PAGE = ROOT / "docs/troubleshooting.md"

#: What others say, in whose words.
FOREIGN = {
    "File too large": os.strerror(27),
    "No space left on device": os.strerror(28),
    "Permission denied": os.strerror(13),
    "Directory cannot be locked": "Snakemake",
    "This could indicate a clock skew problem": "Snakemake",
    "THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE": "pip",
    "No module named 'encodings'": "Python",
}

#: Words that no single text has, and the parts that the code puts together.
PUT_TOGETHER = {
    "is the record of": ("the record", "where that of"),
    "its robust_accuracy": ("robust_accuracy", "its outcomes say"),
    "GPU slots are taken; they are held by process": ("GPU slots are taken", "they are held by", "process "),
    "warning: torch-": ("warning: ", "is not verified"),
}


def quoted() -> Iterator[str]:
    """Yields what the first column quotes, with `...` for what differs."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([^`]+)`", line.split("|")[1])


def texts(path: Path) -> Iterator[str]:
    """Yields the texts of a Python file, with an ellipsis for each value that is put in."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def said() -> str:
    paths = [path for folder in ("src", "envs", "containers") for path in sorted((ROOT / folder).rglob("*.py"))]
    in_python = "\n".join(" ".join(text.split()) for path in paths for text in texts(path))
    return f"{in_python}\n{(ROOT / 'Makefile').read_text(encoding='utf-8')}"


@pytest.mark.parametrize("message", list(quoted()))
def test_a_message_that_the_page_quotes_is_said(message: str, said: str) -> None:
    fragments = [part.strip(" .:;()") for part in message.removeprefix("error: ").split("...")]
    for fragment in filter(None, fragments):
        parts = PUT_TOGETHER.get(fragment, (fragment,))
        assert fragment in FOREIGN or all(part in said for part in parts), fragment


def test_there_is_a_row_for_every_line_of_the_table() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
    assert len(rows) > 25 and all(re.match(r"\| .*`.+` .*\| .+ \|$", row) for row in rows)


@pytest.mark.parametrize("message", [text for text, who in FOREIGN.items() if who == text])
def test_the_system_says_it_so(message: str) -> None:
    assert FOREIGN[message] == message


def test_python_without_its_library_says_so(tmp_path: Path) -> None:
    """PYTHONHOME ends Python itself, before anything of creditflow; `make` takes it out of the environment."""
    environment = os.environ | {"PYTHONHOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "No module named 'encodings'" in done.stderr
