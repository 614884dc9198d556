"""The scripts around attacks: help on settings, and clean measurements that load no attack."""

import runpy
import subprocess
import sys

import pytest

from creditflow.core import plugins
from creditflow.core.errors import UserError
from helpers import ROOT

IMPORTS = """
import runpy, sys
for script in ("evaluate", "encode", "retrieve"):
    runpy.run_path(f"src/{script}.py", run_name="imported")
print(sorted(name for name in sys.modules if name.startswith(("foolbox", "pyautoattack", "creditflow.attacks"))))
"""

TORCH_FREE = """
import sys
from creditflow.core import plugins
from creditflow.retrieval.settings import RetrievalSettings
for kind in ("attack", "hash_attack"):
    for name in plugins.names(kind):
        plugins.settings_class(kind, name).model_json_schema()
print(sorted({"torch", "pandas", "matplotlib", "foolbox", "pyautoattack"} & set(sys.modules)))
"""


def printed_by(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'src')\n{code}"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return done.stdout.strip()


def test_clean_measurements_load_no_attack() -> None:
    assert printed_by(IMPORTS) == "[]"


def test_settings_of_attacks_and_retrieval_load_no_torch() -> None:
    assert printed_by(TORCH_FREE) == "[]"


def run_script(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    """Runs a script's `main` in this process and returns the exit code."""
    monkeypatch.setattr(sys, "argv", [f"src/{name}.py", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / f"src/{name}.py"), run_name="imported")["main"]()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("script", "kind", "name"),
    [
        (script, kind, name)
        for script, kind in (("attack", "attack"), ("attack_retrieval", "hash_attack"))
        for name in plugins.names(kind)
    ],
)
def test_the_settings_of_an_attack_are_shown_without_any_other_option(
    script: str, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script(script, monkeypatch, "--help-settings", "--attack", name) == 0
    shown = capsys.readouterr().out
    summary = " ".join(plugins.docstring(kind, name).partition("\n\n")[0].split())
    assert shown.startswith(f"{name}: {summary}\n")
    for key in plugins.settings_class(kind, name).model_fields:
        assert f"\n{key}: " in shown


def test_the_help_has_range_default_and_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("attack", monkeypatch, "--attack", "square", "--help-settings") == 0
    shown = capsys.readouterr().out
    assert "queries: integer, 1 to 10,000,000 [5000]\n    Number of queries for each image and restart.\n" in shown
    assert "initial_share: number, above 0, at most 1 [0.8]\n" in shown


def test_help_on_settings_needs_an_attack_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_script("attack", monkeypatch, "--help-settings") == 2
    assert "--help-settings needs --attack" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["src/attack.py", "--attack", "pdg", "--help-settings"])
    with pytest.raises(UserError, match="unknown attack 'pdg'; did you mean 'pgd'"):
        runpy.run_path(str(ROOT / "src/attack.py"), run_name="imported")["main"]()
