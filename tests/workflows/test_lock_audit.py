"""`make check-lock` says how many packages were looked up, and fails unless all were and none is vulnerable."""

import sys
from pathlib import Path

import pytest

from scripts import LOCKS, entries, module_from


def answer(pins: dict[str, str], **changed: dict[str, object]) -> dict[str, object]:
    """What pip-audit answers about these pins, with changed entries."""
    return {
        "dependencies": [
            {"name": name, "version": version, "vulns": []} | changed.get(name, {}) for name, version in pins.items()
        ],
        "fixes": [],
    }


AUDITED = {"numpy": "2.4.6", "torch": "2.13.0", "typing-extensions": "4.16.0"}
SKIPPED = {"skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}
MISSED = "error: 1 of 3 locked packages could not be looked up"


@pytest.mark.parametrize(
    ("reply", "lines", "code"),
    [
        (answer(AUDITED), ["3 of 3 locked packages were looked up; none has a known vulnerability"], 0),
        (answer({"Numpy": "2.4.6", "torch": "2.13.0", "typing_extensions": "4.16.0"}), ["3 of 3 locked packages"], 0),
        (
            answer(AUDITED, torch=SKIPPED),
            ["2 of 3 ", "not looked up (Dependency not found on PyPI and could not be audited): torch", MISSED],
            1,
        ),
        (answer({"numpy": "2.4.6", "torch": "2.13.0"}), ["2 of 3 ", "not looked up (pip-audit does not", MISSED], 1),
        (answer(AUDITED, numpy={"version": "1.0"}), ["2 of 3 ", "not looked up (pip-audit looked up v", MISSED], 1),
        (answer(AUDITED, numpy={"vulns": None}), ["2 of 3 ", "not looked up (pip-audit says nothing", MISSED], 1),
        (answer({}), ["0 of 3 ", "not looked up", "error: 3 of 3 locked packages could not be looked up"], 1),
        (
            answer(AUDITED, torch={"vulns": [{"id": "PYSEC-1", "fix_versions": ["2.14.0"]}]}),
            [
                "3 of 3 ",
                "torch 2.13.0 is vulnerable: PYSEC-1 (not in 2.14.0)",
                "error: 1 of 3 has a known vulnerability",
            ],
            1,
        ),
    ],
)
def test_the_audit_says_how_many_were_looked_up(reply: dict[str, object], lines: list[str], code: int) -> None:
    said, status = module_from("envs/audit.py").judgement(AUDITED, reply)
    assert status == code
    assert len(said) == len(lines)
    assert all(text.startswith(start) for text, start in zip(said, lines, strict=True)), said


PIN = f"numpy==2.4.6 \\\n    --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize(
    ("lock", "message"),
    [
        ("# nothing\n", "there is no pin in lock.txt"),
        (PIN + "evil @ https://example.org/evil.whl\n", "line 3 is no pin with its hashes: 'evil @"),
        (PIN + "-r others.txt\n", "line 3 is no pin"),
        (PIN + "--index-url https://example.org\n", "line 3 is no pin"),
        (PIN + "torch[all]==2.0 \\\n", "line 3 is no pin"),
        (PIN + "torch==1!2.0 \\\n", "line 3 is no pin"),
        (PIN + "torch==2.0+cpu \\\n", "line 3 is no pin"),
        (PIN + "torch>=2.0 \\\n", "line 3 is no pin"),
        (PIN + "torch==2.0\n", "line 3 is no pin"),
        (PIN + "    --hash=md5:00\n", "line 3 is no pin"),
        (PIN + PIN.replace("2.4.6", "1.0 ; python_full_version < '3'"), "line 3: numpy has a second version"),
        (PIN + PIN.replace("numpy==2.4.6", "NumPy==1.0"), "line 3: NumPy has a second version"),
    ],
)
def test_a_lock_that_could_not_be_looked_up_whole_is_refused(
    lock: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = module_from("envs/audit.py")
    path = tmp_path / "lock.txt"
    path.write_text(PIN, encoding="utf-8")
    assert script.locked_pins([path]) == {"numpy": "2.4.6"}
    path.write_text(lock, encoding="utf-8")
    assert script.audit("true", [path]) == 1
    said = capsys.readouterr()
    assert said.err.startswith("error: nothing was looked up: ") and message in said.err
    assert said.err.count("\n") == 1 and not said.out


def test_the_locks_of_the_project_can_be_looked_up_whole() -> None:
    script = module_from("envs/audit.py")
    locks = sorted(script.ENVS.glob("requirements*.txt"))
    assert len(script.locked_pins(locks)) == sum(len(entries(name)) for name in LOCKS)
    assert {"pip-audit", "uv"} <= script.locked_pins([script.ENVS / "check.txt"]).keys()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'ERROR: no connection' >&2; exit 1", "no connection"),
        ("exit 3", "pip-audit ended with exit code 3"),
        ("echo '[]'", "pip-audit's answer has no list of dependencies"),
        (None, "No such file"),
    ],
)
def test_an_audit_without_an_answer_is_one_line(
    script: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "pip-audit"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    audit = module_from("envs/audit.py")
    assert audit.audit(str(program), sorted(audit.ENVS.glob("requirements*.txt"))) == 1
    said = capsys.readouterr()
    n_pins = sum(len(entries(name)) for name in LOCKS)
    assert said.err.startswith(f"error: none of {n_pins} locked packages was looked up: ")
    assert message in said.err and said.err.count("\n") == 1 and not said.out


def test_the_audit_asks_about_every_pin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = tmp_path / "pip-audit"
    reply = "{'dependencies': [{'name': n, 'version': v, 'vulns': []} for n, v in pins]}"
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"pins = [line.split('==') for line in open(sys.argv[-1]).read().split()]\nprint(json.dumps({reply}))\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    assert module_from("envs/audit.py").main(str(program)) == 0
    n_pins = sum(len(entries(name)) for name in LOCKS)
    assert capsys.readouterr().out.startswith(f"{n_pins} of {n_pins} locked packages were looked up;")
