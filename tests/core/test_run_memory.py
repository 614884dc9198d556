"""What the jobs of a run share: a hash is read again as soon as anything about its file has changed."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from creditflow.compute import provenance
from creditflow.core import run_memory
from creditflow.core.run_memory import known_sha256, remembered
from helpers import ROOT

LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run; every file counts as settled, whatever the time of its inode."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setenv(run_memory.VARIABLE, str(folder))
    monkeypatch.setattr(run_memory, "_of_this_process", {})
    monkeypatch.setattr(run_memory, "_RESTED_S", -3600.0)
    return folder


def other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_memory, "_of_this_process", {})


def never() -> str:
    raise AssertionError("it was computed again")


def test_another_job_of_the_run_need_not_compute(memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"one")
    assert remembered("x", [file], lambda: "value") == "value"
    other_job(monkeypatch)
    assert remembered("x", [file], never) == "value"
    assert remembered("y", [file], lambda: "another thing") == "another thing"


def rewritten_with_the_same_times(file: Path) -> None:
    facts = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"two")
    os.utime(other, ns=(LONG_AGO, LONG_AGO))
    other.replace(file)


@pytest.mark.parametrize(
    "change", [lambda file: file.write_bytes(b"two"), rewritten_with_the_same_times, replaced, Path.unlink]
)
def test_a_file_that_changes_is_read_again(memory: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"one")
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert known_sha256(file) == hashlib.sha256(b"one").hexdigest()
    time.sleep(0.02)  # the clock of the kernel ticks a hundred times a second or more often
    change(file)
    if file.exists():
        assert known_sha256(file) == hashlib.sha256(b"two").hexdigest()
    else:
        with pytest.raises(FileNotFoundError):
            known_sha256(file)


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_memory, "_RESTED_S", 3.0)
    file = tmp_path / "data"
    file.write_bytes(b"one")
    known_sha256(file)
    assert not list(memory.iterdir())


def test_what_changes_while_it_is_read_is_not_remembered(memory: Path, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"one")

    def compute() -> str:
        file.write_bytes(b"longer")
        return "of neither"

    assert remembered("x", [file], compute) == "of neither"
    assert remembered("x", [file], lambda: "of the new one") == "of the new one"


def test_without_a_folder_or_with_a_damaged_note_everything_is_computed(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"one")
    remembered("x", [file], lambda: "value")
    next(memory.iterdir()).write_bytes(b"\xff")
    other_job(monkeypatch)
    assert remembered("x", [file], lambda: "value") == "value"
    other_job(monkeypatch)
    shutil.rmtree(memory)
    assert remembered("x", [file], lambda: "again") == "again"
    other_job(monkeypatch)
    monkeypatch.delenv(run_memory.VARIABLE)
    assert remembered("x", [file], lambda: "alone") == "alone"


def test_the_hash_of_the_sources_follows_every_change(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "src", clone / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", clone)
    monkeypatch.setattr(provenance, "__file__", str(clone / "src/creditflow/compute/provenance.py"))

    def hashed() -> str:
        other_job(monkeypatch)
        provenance.source_hash.cache_clear()
        known = provenance.source_hash()
        monkeypatch.delenv(run_memory.VARIABLE)
        other_job(monkeypatch)
        provenance.source_hash.cache_clear()
        assert provenance.source_hash() == known
        monkeypatch.setenv(run_memory.VARIABLE, str(memory))
        provenance.source_hash.cache_clear()
        return known

    seen = [hashed()]
    assert hashed() == seen[0]
    rule = clone / "src/creditflow/feedback/rules/bp.py"
    for change in (
        lambda: rule.write_text(rule.read_text(encoding="utf-8") + "\n# a word\n", encoding="utf-8"),
        lambda: rule.rename(rule.with_name("other.py")),
        (clone / "src/creditflow/feedback/rules/fresh.py").touch,
        (clone / "src/stage.py").touch,
        (clone / "Snakefile").unlink,  # beside an installed library lie other packages
    ):
        change()
        seen.append(hashed())
    assert len(set(seen)) == len(seen)
