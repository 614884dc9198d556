"""Files of the library that somebody is writing or merging: one line names file and line, and others go on."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from creditflow.core import modules
from creditflow.core.errors import UserError
from creditflow.core.modules import imported
from creditflow.workflow.failures import Failure
from creditflow.workflow.loading import load_experiment, load_experiments
from creditflow.workflow.requests import check_target
from helpers import ROOT, project, snakemake
from workflows.test_sign_symmetry_workflow import TINY

#: What a file has, and what is said of it after its path.
BROKEN = {
    "a syntax error": ('"""A rule."""\n\ndef (\n', ", line 3: not valid Python "),
    "a conflict": ("<<<<<<< HEAD\nRULE = 1\n", ", line 1: not valid Python "),
    "an indentation": ("def f():\nreturn 1\n", ", line 2: not valid Python "),
    "a tab": ("if 1:\n\tx = 1\n        y = 2\n", ", line 3: not valid Python "),
    "a name": ("x = 1\nRULE = rule\n", r", line 2: cannot be imported \(NameError: name 'rule' is not defined\)"),
    "an import": ("\nimport not_there\n", r", line 2: cannot be imported \(ModuleNotFoundError: No module "),
    "a value": ("\n\nint('x')\n", r", line 3: cannot be imported \(ValueError: invalid literal"),
}


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("case", BROKEN)
def test_a_plugin_that_is_broken(case: str, deep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is the plugin's file, or one that it imports."""
    content, said = BROKEN[case]
    name = f"broken_{abs(hash((case, deep)))}"
    (tmp_path / f"{name}.py").write_text(content, encoding="utf-8")
    (tmp_path / f"{name}_above.py").write_text(f"import {name}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(modules, "_PACKAGE", tmp_path)
    with pytest.raises(UserError, match=f"{name}.py{said}.*; mend it, or move it away") as caught:
        imported(f"{name}_above" if deep else name)
    assert "\n" not in str(caught.value)


def test_lack_of_memory_is_not_the_plugins_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needs_memory.py").write_text("raise MemoryError\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MemoryError):
        imported("needs_memory")


@pytest.mark.parametrize("case", [case for case, (_, said) in BROKEN.items() if "not valid Python" in said])
def test_a_job_whose_files_are_broken(case: str, tmp_path: Path) -> None:
    """A stage imports most of the library at its start; what the job leaves is Python's own traceback."""
    content, said = BROKEN[case]
    (tmp_path / "part.py").write_text(content, encoding="utf-8")
    (tmp_path / "stage.py").write_text("import part\n", encoding="utf-8")
    log = tmp_path / "stage.log"
    with log.open("wb") as file:
        subprocess.run([sys.executable, str(tmp_path / "stage.py")], stderr=file, check=False)
    line = Failure("finetune", (log,), "").line()
    assert line.startswith(f"error: finetune {log}: {tmp_path}/part.py{said}") and "\n" not in line


@pytest.mark.slow
def test_a_workflow_goes_on_without_what_is_broken(tmp_path: Path) -> None:
    folder = project(tmp_path, tiny=TINY)
    source = folder / "src/creditflow"
    settings = source / "attacks/methods/settings/ddn.py"
    for path in (source / "feedback/rules/mine.py", settings):
        path.write_text("def (\n", encoding="utf-8")
    (folder / "config/experiments/other.yaml").write_text(
        f"{TINY}\n".replace("fgsm:", "ddn: {epsilons: [0.1], images: 10, batch_size: 10}\n  fgsm:"), encoding="utf-8"
    )
    done = snakemake(folder, "-n", "tiny")
    assert done.returncode == 0 and "Traceback" not in done.stdout, done.stdout
    warning = f"warning: config/experiments/other.yaml: {settings}, line 1: not valid Python"
    assert warning in done.stdout
    refused = snakemake(folder, "-n", "other")
    assert refused.returncode == 2 and "Traceback" not in refused.stdout
    assert f"{settings}, line 1: not valid Python" in refused.stdout.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["workflow/session.py", "core/settings.py", "workflow/sources.py"])
def test_a_workflow_whose_own_files_are_broken_ends_in_one_line(name: str, tmp_path: Path) -> None:
    folder = project(tmp_path, tiny=TINY)
    path = folder / "src/creditflow" / name
    path.write_text(path.read_text(encoding="utf-8") + "\n>>>>>>> other\n", encoding="utf-8")
    done = snakemake(folder, "-n", "tiny")
    assert done.returncode == 2 and done.stdout.splitlines()[-1].startswith(f"error: {path}, line "), done.stdout
    assert "Traceback" not in done.stdout


def experiments(folder: Path) -> Path:
    shutil.copy(ROOT / "config/experiments/quick.yaml", folder / "quick.yaml")
    shutil.copy(ROOT / "config/experiments/quick.yaml", folder / "mine.yml")
    return folder


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("quick.yaml", "is the file of an experiment; ask for the experiment by its name, quick"),
        ("quick.yml", "by its name, quick"),
        ("config/experiments/quick.yaml", "by its name, quick"),
        ("./config/experiments/quick.yaml", "by its name, quick"),
        ("/elsewhere/config/experiments/quick.yaml", "by its name, quick"),
        ("QUICK", "did you mean 'quick'"),
        ("Quick.YAML", "did you mean 'quick'"),
        ("quik.yaml", "did you mean 'quick'"),
        ("config/experiments/quik.yml", "did you mean 'quick'"),
        ("prefetch_quik", "did you mean 'prefetch_quick'"),
        ("quick/", "did you mean 'quick'"),
        ("mine", "mine.yml: files of experiments end in .yaml; rename it to mine.yaml"),
        ("mine.yml", "rename it to mine.yaml"),
        ("config/experiments/mine.yaml", "rename it to mine.yaml"),
        ("results/mine/report.html", "rename it to mine.yaml"),
        ("results/QUICK/report.html", "did you mean 'quick'"),
    ],
)
def test_an_experiment_that_is_asked_for_by_another_name(target: str, hint: str, tmp_path: Path) -> None:
    found = load_experiments(experiments(tmp_path))
    with pytest.raises(UserError, match=hint) as caught:
        check_target(target, found, ["all", "quick", "prefetch_quick"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mine", "mine.yml"])
def test_a_stage_that_is_told_of_an_experiment_by_another_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mine\.yml: files of experiments end in \.yaml; rename it to mine\.yaml"):
        load_experiment(experiments(tmp_path), name)


def test_a_folder_whose_experiments_all_have_another_ending(tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"has no experiments .*mine\.yml: .*rename it to mine\.yaml"):
        load_experiments(tmp_path)
