"""Stages run alike whatever the shell, a notebook or a git hook exports."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas

from creditflow.compute import provenance
from creditflow.core.environment import clean
from creditflow.core.errors import UserError
from creditflow.reporting.figure import Figure, write_figure
from creditflow.workflow import forkserver
from creditflow.workflow.preflight import check_place
from helpers import ROOT, project, snakemake
from workflows.test_sign_symmetry_workflow import TINY

#: What shells, notebooks, schedulers and hooks export, and what a stage does with it unless it is cleaned.
HOSTILE = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # Jupyter's: matplotlib dies at import
    "MATPLOTLIBRC": "/nonexistent/matplotlibrc",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONINSPECT": "1",
    "PYTHONDEVMODE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "ascii:strict",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONSTARTUP": "/nonexistent/startup.py",
    "LC_ALL": "POSIX",
    "PIP_USER": "1",
    "PIP_TARGET": "/nonexistent",
    "GIT_DIR": "/nonexistent/.git",
    "GIT_WORK_TREE": "/nonexistent",
    "GIT_INDEX_FILE": "/nonexistent/index",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "NPY_DISABLE_CPU_FEATURES": "AVX2",
    "OMP_THREAD_LIMIT": "1",
    "KMP_ALL_THREADS": "1",
    "TORCH_LOGS": "nonsense",  # torch dies at import
    "TORCH_CPP_LOG_LEVEL": "INFO",
    "TORCHDYNAMO_VERBOSE": "1",
    "SOURCE_DATE_EPOCH": "yesterday",  # so do matplotlib and foolbox
    "TQDM_NCOLS": "wide",  # and tqdm
    "BASH_ENV": "/nonexistent/bashrc",
    "CDPATH": "/",
    "GREP_OPTIONS": "--color=always",
}

#: These are as a stage finds them: where Python puts what it caches, and what C libraries say.
_REMAIN = ("LC_ALL", "PYTHONCOERCECLOCALE")

#: What a stage has instead.
SET = {"PYTHONUTF8": "1", "GIT_PYTHON_REFRESH": "quiet", "GIT_PYTHON_GIT_EXECUTABLE": "none"}


#: Where nothing can be written: for users without a home, as in containers and on clusters.
UNWRITABLE = {
    "HOME": "/dev/null",
    "MPLCONFIGDIR": "/dev/null",
    "XDG_CACHE_HOME": "/dev/null",
    "TORCH_HOME": "/dev/null",
}

#: A folder's name with what shells, Snakemake, make, URLs and SQL take for something else.
ODD = 'p\'r #1 ö漢 $HOME %s (a) & "b"; ~ [c] 100%25'


def test_what_is_cleaned_and_what_stays() -> None:
    kept = {"PATH": "/bin", "HOME": "/root", "TORCH_HOME": "/x", "MPLCONFIGDIR": "/y", "OMP_NUM_THREADS": "4"}
    kept |= {"MKL_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "", "HTTPS_PROXY": "x", "GIT_CONFIG_COUNT": "1"}
    environment = HOSTILE | kept
    changed = clean(environment)
    assert changed == HOSTILE.keys() - set(_REMAIN) | SET.keys()
    assert environment == kept | {name: HOSTILE[name] for name in _REMAIN} | SET
    assert clean(environment) == set()


#: A script beside the library: what it was started with, and what it can write.
SCRIPT = """\
from creditflow.core import files
import json, os, sys
print(json.dumps({"environment": dict(os.environ), "arguments": sys.argv[1:], "optimize": sys.flags.optimize,
    "warnings": sys.warnoptions, "encodings": [sys.stdout.encoding, sys.getfilesystemencoding()],
    "first": sys.path[0]}))
print("Grüße, \\u6f22\\u5b57")
"""


def hostile(**others: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "COLUMNS"} | HOSTILE | others


def told_by(done: "subprocess.CompletedProcess[str]") -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert second == "Grüße, 漢字"
    return json.loads(first)


@pytest.mark.parametrize("forked", [False, True])
def test_a_stage_starts_with_a_clean_environment(tmp_path: Path, forked: bool) -> None:
    source = tmp_path / "src"
    library = ROOT / "src/creditflow"
    shutil.copytree(library / "core", source / "creditflow/core", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(library / "__init__.py", source / "creditflow")
    (source / "probe.py").write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/json.py").write_text("raise SystemExit('another json')", encoding="utf-8")
    (tmp_path / "elsewhere/fcntl.py").write_text("raise SystemExit('another fcntl')", encoding="utf-8")
    done = subprocess.run(
        [*(forkserver.launch(())[1] if forked else [sys.executable]), str(source / "probe.py"), "ä", "b c"],
        env=hostile(PYTHONPATH=str(tmp_path / "elsewhere")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    told = told_by(done)
    assert not (HOSTILE.keys() - set(_REMAIN) - {"PYTHONUTF8"}) & dict(told["environment"]).keys()
    assert told["arguments"] == ["ä", "b c"] and told["first"] == str(source)
    assert (told["optimize"], told["warnings"], told["encodings"]) == (0, [], ["utf-8", "utf-8"])


def test_figures_are_drawn_whatever_a_notebook_exports() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/plot_figure.py"), "--help"],
        env=hostile(**UNWRITABLE),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr


def test_a_stage_that_attacks_needs_no_sound_configuration_of_git(tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text("no section", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(ROOT / "src/attack.py"), "--help"],
        env=hostile(HOME=str(tmp_path), GIT_CONFIG_GLOBAL=str(tmp_path / ".gitconfig")),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "| true"])
def test_a_stage_ends_well_whatever_its_streams_are(tmp_path: Path, closed: str) -> None:
    """What a stage prints goes nowhere then, never into a file that has got the stream's number."""
    path = tmp_path / "stage.py"
    path.write_text(
        "import time\nfrom pathlib import Path\nfrom creditflow.stages.command_line import run_stage\n"
        "def main():\n"
        "    with open('result', 'w', encoding='utf-8') as file:\n"
        "        file.write('whole')\n"
        "    time.sleep(0.1)\n    print('said')\n"
        "run_stage(main)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} {path} {closed}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (tmp_path / "result").read_text(encoding="utf-8") == "whole"
    lost = closed in (">/dev/full", "| true")
    assert done.returncode == (2 if lost else 0) and done.stderr.count("\n") == lost, done.stderr
    assert done.stderr.startswith("error: ") or not lost


def test_figures_do_not_follow_a_matplotlibrc(tmp_path: Path) -> None:
    def draw(frame: pd.DataFrame, settings: object) -> Canvas:
        canvas = Canvas(figsize=(2, 2))
        canvas.add_subplot().plot([1, 3, 2], label="x")
        return canvas

    figure = Figure(draw)
    for name, look in (("usual", {}), ("theirs", {"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 30})):
        with matplotlib.rc_context(look):
            write_figure(figure, pd.DataFrame(), None, tmp_path / name)
    for suffix in (".pdf", ".svg", ".png"):
        assert (tmp_path / f"usual{suffix}").read_bytes() == (tmp_path / f"theirs{suffix}").read_bytes()


def test_the_commit_is_that_of_the_code_within_a_git_hook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    provenance.git_commit.cache_clear()
    before = provenance.git_commit()
    for name, value in {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() == before
    provenance.git_commit.cache_clear()


#: A program in git's place, or none, and what the warning says of it.
GITS = {
    "hangs": ("sleep 60", "git does not answer within 0.2 s"),
    "distrusts": ("echo 'fatal: detected dubious ownership' >&2; exit 128", "fatal: detected dubious ownership"),
    "fails": ("exit 3", "git ends with exit code 3"),
    "lies elsewhere": ("echo /", ".git is no repository of its own"),
    "is missing": (None, "git cannot be run: .*No such file"),
}


@pytest.mark.parametrize("case", GITS)
def test_a_commit_that_git_does_not_name_is_said(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, why = GITS[case]
    module = tmp_path / "src/creditflow/compute/provenance.py"
    (tmp_path / ".git").mkdir()
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr(provenance, "__file__", str(module))
    monkeypatch.setattr(provenance, "_GIT_PATIENCE_S", 0.2)
    (tmp_path / "bin").mkdir()
    if script is not None:
        (tmp_path / "bin/git").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "bin/git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin" if script is None else f"{tmp_path}/bin:/usr/bin:/bin")
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() is None
    provenance.git_commit.cache_clear()
    said = capsys.readouterr().err
    assert re.search(f"^warning: records will not name the commit of .*{why}", said) and said.count("\n") == 1


def test_an_archive_that_was_unpacked_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Snakefile").touch()
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "src/creditflow/compute/provenance.py"))
    provenance.git_commit.cache_clear()
    assert provenance.git_commit() is None and capsys.readouterr().err == ""
    provenance.git_commit.cache_clear()


def test_jobs_of_the_workflow_have_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ODD).mkdir()
    folder = project(tmp_path / ODD, own_server=True, tiny=TINY)
    (folder / "src/fetch.py").write_text(
        "import json, os, sys\nfrom pathlib import Path\n"
        "Path('environment.json').write_text(json.dumps([dict(os.environ), sys.flags.optimize]))\n"
        "Path(sys.argv[-1]).mkdir(parents=True)\n",
        encoding="utf-8",
    )
    snakemake(folder, "--version")  # the process that is forked has started, as Snakemake itself cannot be cleaned
    libraries = {name: value for name, value in UNWRITABLE.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    for name, value in (HOSTILE | libraries).items():  # Snakemake itself needs one of these two
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = snakemake(folder, "--", "results/data/digits/raw")
    assert done.returncode == 0, done.stdout
    environment, optimize = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert not (HOSTILE.keys() - set(_REMAIN) - {"PYTHONUTF8"}) & environment.keys()
    assert environment["PYTHONUTF8"] == "1" and optimize == 0
    assert Path(environment["MPLCONFIGDIR"]).is_relative_to(folder)


def test_make_passes_nothing_on_that_changes_what_is_installed_or_run(tmp_path: Path) -> None:
    (tmp_path / "probe.mk").write_text(f"include {ROOT}/Makefile\nprobe:\n\t@env\n", encoding="utf-8")
    others = {"PYTHONPATH": "/x", "PYTHONHOME": "/x", "SNAKEMAKE_PROFILE": "x", "PIP_INDEX_URL": "https://x"}
    done = subprocess.run(
        ["make", "--no-print-directory", "-f", str(tmp_path / "probe.mk"), "probe"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | HOSTILE | others,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    passed = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert passed["PYTHONUTF8"] == "1" and passed["PIP_INDEX_URL"] == "https://x"
    of_installing = {name for name in HOSTILE if name.startswith(("MPL", "MAT", "PYTHON", "PIP", "GIT", "BASH", "CD"))}
    leaked = (of_installing | others.keys()) & passed.keys()
    assert leaked == {"PYTHONUTF8", "PYTHONCOERCECLOCALE", "PIP_INDEX_URL"}


@pytest.mark.parametrize("writable", [True, False])
def test_make_gives_snakemake_a_cache_where_the_home_folder_cannot_be_written(writable: bool, tmp_path: Path) -> None:
    (tmp_path / "probe.mk").write_text(f"include {ROOT}/Makefile\nprobe:\n\t@env\n", encoding="utf-8")
    done = subprocess.run(
        ["make", "--no-print-directory", "-f", str(tmp_path / "probe.mk"), "probe"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path if writable else "/dev/null")},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    passed = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
    assert passed.get("XDG_CACHE_HOME") == (None if writable else f"{ROOT}/.snakemake/cache")


def test_a_clone_whose_path_has_braces_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^/a/\{b\} has braces, which Snakemake takes for wildcards; rename or move"):
        check_place(Path("/a/{b}"))
    check_place(Path("/a") / ODD)
