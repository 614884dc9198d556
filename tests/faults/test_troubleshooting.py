"""The page of troubleshooting quotes what is really said: each message is in the code, or is somebody else's.

Each row names the test that causes it, or says how it was caused by hand. That the advice helps was tried by hand, row
by row.
"""

import ast
import os
import re
import shutil
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


#: By the first quote of each row: the test file that causes what it says, and words that stand there; None where only
#: a machine or a service can cause it, with how it was tried.
TRIED: dict[str, tuple[str | None, str]] = {
    "is damaged or was edited: its seal is not": (
        "tests/faults/test_promises.py",
        "its seal is not that of its content",
    ),
    "is damaged or not the file that its sidecar": ("tests/faults/promised_networks.py", "that its sidecar describes"),
    "has no seal": ("tests/faults/test_promises.py", '"has no seal"'),
    "is the record of": ("tests/faults/test_identity.py", "test_a_record_in_the_place_of_another"),
    "are both the record of": ("tests/faults/test_identity.py", "are both the record of"),
    "its robust_accuracy": ("tests/faults/test_identity.py", "test_a_record_whose_seal_fits_but_whose_mean_does_not"),
    "is damaged or was edited: its hash is not": ("tests/faults/promised_reporting.py", "its hash is not that in"),
    "is not a prepared dataset": ("tests/faults/promised_data.py", "(its content is not what was written)"),
    "is damaged or belongs to another dataset": ("tests/faults/promised_data.py", "another dataset: its checksum"),
    "was saved, so that it may make another": ("tests/models/test_by_factory.py", r"has changed since m\.safetensors"),
    "has changed since fetch looked at it": (
        "tests/data/test_image_folders.py",
        "has changed since fetch looked at it",
    ),
    "nothing can be written in": ("tests/faults/test_modes.py", "nothing can be written in"),
    "ended without a word": ("tests/faults/test_modes.py", "test_a_killed_job_has_its_line"),
    "ignoring the damaged checkpoint": ("tests/faults/test_damage.py", "ignoring the damaged checkpoint"),
    "File too large": ("tests/faults/test_disk.py", "File too large"),
    "another process works on": ("tests/faults/promised_stages.py", "another process works on"),
    "another Snakemake has kept": ("tests/faults/test_waits.py", "another Snakemake has kept"),
    "Directory cannot be locked": ("tests/workflows/test_sign_symmetry_workflow.py", "cannot be locked"),
    "stopped by SIGTERM": ("tests/faults/test_kill.py", "stopped by SIGTERM"),
    "GPU slots are taken": ("tests/compute/test_gpus.py", "GPU slots are taken"),
    "is asked for, but": ("tests/compute/test_gpus.py", "is asked for, but"),
    "comes from the future": ("tests/workflow/test_failures.py", "comes from the future"),
    "not valid Python": ("tests/faults/test_broken_files.py", "not valid Python"),
    "records will not name the commit of": ("tests/faults/test_environment.py", "records will not name the commit"),
    "diverged at step": ("tests/workflows/test_population_workflow.py", "diverged at step"),
    "there is no image": ("tests/workflows/test_containers.py", "there is no image"),
    "comes from the distribution": ("tests/core/test_entry_points.py", "which the container image does not have"),
    "THESE PACKAGES DO NOT MATCH THE HASHES": (None, "pip installed a package under the hash of another one"),
    "is not verified": ("tests/workflows/test_environment.py", "is not verified"),
    "locked packages could not be looked up": ("tests/workflows/test_lock_audit.py", "could not be looked up"),
    "nothing was looked up": ("tests/workflows/test_lock_audit.py", "nothing was looked up"),
    "is truncated, corrupt or another file": ("tests/faults/promised_networks.py", "is truncated, corrupt or another"),
    "creditflow needs Python 3.11 or newer": ("tests/faults/test_troubleshooting.py", "def test_an_old_python_is_told"),
    "No module named 'encodings'": ("tests/faults/test_troubleshooting.py", "def test_python_without_its_library"),
    "the process that jobs are forked from": ("tests/workflow/test_forkserver.py", "jobs are forked from was killed"),
    ".cache": ("tests/faults/test_environment.py", "XDG_CACHE_HOME"),
    "has braces": ("tests/faults/test_environment.py", "has braces"),
    "out of memory": ("tests/workflow/test_failures.py", "out of memory"),
}


def rows() -> list[str]:
    """Returns the lines of the table, without its head."""
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]


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
    assert len(rows()) > 25 and all(re.match(r"\| .*`.+` .*\| .+ \|$", row) for row in rows())


def test_every_row_is_tried_and_says_where() -> None:
    without = [row for row in rows() if not any(start in row.split("|")[1] for start in TRIED)]
    assert without == []
    assert [start for start in TRIED if not any(start in row.split("|")[1] for row in rows())] == []


@pytest.mark.parametrize("start", [start for start, (path, _) in TRIED.items() if path is not None])
def test_the_test_that_tries_a_row_is_there(start: str) -> None:
    path, words = TRIED[start]
    assert words in (ROOT / str(path)).read_text(encoding="utf-8"), f"{path} does not try {start!r}"


@pytest.mark.parametrize("message", [text for text, who in FOREIGN.items() if who == text])
def test_the_system_says_it_so(message: str) -> None:
    assert FOREIGN[message] == message


def test_python_without_its_library_says_so(tmp_path: Path) -> None:
    """PYTHONHOME ends Python itself, before anything of creditflow; `make` takes it out of the environment."""
    environment = os.environ | {"PYTHONHOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "No module named 'encodings'" in done.stderr


def test_an_old_python_is_told_before_anything_is_installed(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "envs", tmp_path / "envs", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")  # as 3.10 answers
    (tmp_path / "python").chmod(0o755)
    command = ["make", "--no-print-directory", "demo", "PYTHON=./python"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[0]
    assert said == "error: creditflow needs Python 3.11 or newer; try: make demo PYTHON=python3.11"
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
