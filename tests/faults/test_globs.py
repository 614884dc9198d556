"""Globs take what the project means, never what editors, systems and broken copies leave behind."""

import shutil
from pathlib import Path

import pytest

from creditflow.compute import provenance
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.files import is_left_behind, visible_files
from creditflow.workflow import published_hyperparameters, sources
from creditflow.workflow.container import check_image
from creditflow.workflow.dependence import Library
from creditflow.workflow.loading import load_experiments
from helpers import ROOT

#: What lies beside `<name><suffix>`, and how it comes there: a target of a link, "folder", or a content.
LEFT_BEHIND = {
    ".#usf{}": "me@host:1",  # an unsaved buffer of Emacs: a link to nothing
    "usf{}~": "older",
    "#usf{}#": "not saved",
    ".usf{}.swp": "\0\0\xff",
    "._usf{}": "\0\5\x16\7",  # a copy from macOS
    ".DS_Store": "\0",
    ".hidden{}": "x",
    "usf{}.bak": "x",
    "usf{}.orig": "x",
    "usf{}.rej": "x",
    ".usf{}.swo": "x",
    ".nfs000012{}": "x",  # a file that was removed while somebody had it open
    "Thumbs.db": "\0",
    "~$usf{}": "x",
    "gone{}": "/nonexistent/file",
    "folder{}": "folder",
    "circle{}": "circle{}",
}


def leave_behind(folder: Path, suffix: str) -> None:
    for pattern, content in LEFT_BEHIND.items():
        path = folder / pattern.format(suffix)
        if content == "folder":
            (path / "inside").mkdir(parents=True)
        elif pattern.startswith((".#", "gone", "circle")):
            path.symlink_to(content.format(suffix))
        else:
            path.write_bytes(content.encode("latin-1"))
    for name in ("__pycache__", ".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir"):
        (folder / name).mkdir()
        (folder / name / f"usf{suffix}").write_bytes(b"\xff\xfe")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The library and its configuration, with what editors leave behind in all folders that are searched."""
    for name in ("src", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
    package = tmp_path / "src/creditflow"
    for room in (*plugins.ROOMS.values(), "core", "."):
        leave_behind(package / room, ".py")
    leave_behind(tmp_path / "src", ".py")
    for name in ("published", "hyperparameters"):
        leave_behind(tmp_path / "config" / name, ".csv")
    return tmp_path


def test_plugins_are_the_files_of_their_folder(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {kind: plugins.names(kind) for kind in plugins.ROOMS}
    monkeypatch.setattr(plugins, "_PACKAGE", clone / "src/creditflow")
    (clone / "src/creditflow/feedback/rules/usf copy.py").write_text("x = 1", encoding="utf-8")  # no module's name
    assert {kind: plugins.names(kind) for kind in plugins.ROOMS} == before


#: Files of plugins as they are while somebody edits or merges them.
UNFINISHED = {
    "a syntax error": (b'"""A rule."""\n\ndef (\n', "unfinished.py, line 3: not valid Python"),
    "marks of a conflict": (b"<<<<<<< HEAD\nRULE = 1\n=======\n", "unfinished.py, line 1: not valid Python"),
    "Latin-1": (b"# caf\xe9\nRULE = 1\n", "unfinished.py: not valid Python .'utf-8' codec"),
    "NUL": (b"\0\0", "unfinished.py.*: not valid Python .source code .* null bytes"),
}


@pytest.mark.parametrize("case", UNFINISHED)
def test_an_unfinished_plugin_stops_only_those_who_use_it(
    clone: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    content, message = UNFINISHED[case]
    before = Library(clone / "src").hash("finetune", [("rule", "bp")])
    (clone / "src/creditflow/feedback/rules/unfinished.py").write_bytes(content)
    assert Library(clone / "src").hash("finetune", [("rule", "bp")]) == before
    assert Library(clone / "src").hash("finetune", [("rule", "unfinished")]) != before
    monkeypatch.setattr(plugins, "_PACKAGE", clone / "src/creditflow")
    assert plugins.docstring("rule", "bp")
    with pytest.raises(UserError, match=message) as caught:
        plugins.docstring("rule", "unfinished")
    assert "\n" not in str(caught.value)


def test_hashes_of_the_sources_stay(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hashes(source: Path) -> tuple[str, str, set[str]]:
        monkeypatch.setattr(provenance, "__file__", str(source / "creditflow/compute/provenance.py"))
        provenance.source_hash.cache_clear()
        library = Library(source)
        return provenance.source_hash(), library.hash("attack", [("attack", "pgd")]), library.files

    assert hashes(clone / "src") == hashes(ROOT / "src")
    provenance.source_hash.cache_clear()


def test_a_source_in_another_encoding_has_a_hash(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (clone / "src/creditflow/notes.py").write_bytes(b"# caf\xe9\n")
    monkeypatch.setattr(provenance, "__file__", str(clone / "src/creditflow/compute/provenance.py"))
    provenance.source_hash.cache_clear()
    assert len(provenance.source_hash()) == 16
    provenance.source_hash.cache_clear()


def test_experiments_are_not_blocked(tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT / "config/experiments", tmp_path / "experiments")
    leave_behind(folder, ".yaml")
    experiments = load_experiments(folder)
    assert "quick" in experiments
    # What is visible and no experiment blocks itself only, and is named.
    assert set(experiments.broken) == {"gone", "folder", "circle"}


def test_published_numbers_are_the_files_of_their_folder(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (clone / "config/published", clone / "config/hyperparameters"):
        visible = visible_files(folder, "*.csv")
        assert [path.name for path in visible] == sorted(
            path.name for path in (ROOT / folder.relative_to(clone)).glob("*.csv")
        )
    monkeypatch.setattr(published_hyperparameters, "FOLDER", clone / "config/hyperparameters")
    monkeypatch.setattr(sources.layout, "in_clone", lambda path: clone / path)
    with pytest.raises(Exception, match=r"unknown hyper-parameters 'gone'"):
        published_hyperparameters.with_published(
            {"hyperparameters": [{"file": "gone", "table": "", "row": "", "dataset": "mnist"}]}, ["bp"], "here"
        )


def test_images_of_containers_are_files(tmp_path: Path) -> None:
    leave_behind(tmp_path, ".sif")
    (tmp_path / "creditflow-0.sif").write_bytes(b"")
    with pytest.raises(Exception, match=r"; creditflow-0\.sif belongs to another lock"):
        check_image(tmp_path / "new.sif", "cuda")


@pytest.mark.parametrize(
    "name", ["usf.py", "a_b.yaml", "n01440764_10026.JPEG", "ILSVRC2012_val_00000001.JPEG", "x#1.png"]
)
def test_ordinary_names_are_not_left_behind(name: str) -> None:
    assert not is_left_behind(name)


def test_no_code_searches_folders_in_another_way() -> None:
    """Whoever adds a search must decide what it means; these have decided otherwise, each for a reason of its own."""
    decided = {
        "compute/provenance.py": "a superset of the files that the hash takes, which only says whether one has changed",
        "core/files.py": "visible_files itself, and scratch files of dead processes",
        "workflow/loading.py": "an experiment that is a folder or a link to nothing is named as broken",
        "workflow/session.py": "whatever lies in results must be writable",
    }
    package = ROOT / "src/creditflow"
    searching = {
        path.relative_to(package).as_posix()
        for path in visible_files(package, "**/*.py")
        if any(
            call in path.read_text(encoding="utf-8") for call in (".glob(", ".rglob(", "iterdir(", "os.walk", "scandir")
        )
    }
    assert {path for path in searching - decided.keys() if not path.startswith("data/")} == set()
