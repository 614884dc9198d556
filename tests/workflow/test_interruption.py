"""Ctrl-C in a run: a line that ends, one sentence, and no failures but those from before."""

import io
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from creditflow.workflow import interruption
from creditflow.workflow.failures import Failures
from creditflow.workflow.progress import Progress


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """As Python starts: Ctrl-C raises KeyboardInterrupt."""
    before, hook = signal.signal(signal.SIGINT, signal.default_int_handler), sys.excepthook
    interruption.note()
    yield
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interruption.note()  # which forgets what came
    signal.signal(signal.SIGINT, before)
    sys.excepthook = hook


def press() -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def say(handlers: list[logging.Handler], event: LogEvent | None, level: int = logging.ERROR, **said: Any) -> None:
    """Sends an event to handlers, as Snakemake does."""
    for each in handlers:
        each.handle(logging.makeLogRecord({"levelno": level, "event": event, "msg": "", "created": 0.0} | said))


def fail(handlers: list[logging.Handler], log: Path, text: str, jobid: int = 1) -> None:
    log.write_text(text, encoding="utf-8")
    said = {"rule_name": "attack", "rule_msg": "", "jobid": jobid, "log": [str(log)], "shellcmd": ""}
    say(handlers, LogEvent.JOB_ERROR, msg="Error in rule attack: ...", **said)


def test_it_is_remembered_and_does_what_it_did() -> None:
    assert not interruption.came()
    press()
    assert interruption.came()
    interruption.note()
    assert not interruption.came()


def test_a_second_one_shows_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    press()
    os.kill(os.getpid(), signal.SIGINT)  # too soon after the first: ignored
    for error in (KeyboardInterrupt(), ValueError("told")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == "ValueError: told\n"


def test_a_process_that_ignores_it_goes_on_doing_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interruption.note()
    os.kill(os.getpid(), signal.SIGINT)
    assert not interruption.came()


@pytest.mark.parametrize("done", [0, 1])
def test_a_terminal_keeps_its_line_and_then_shows_one_sentence(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    shown, failures, snakemakes = Progress(terminal, tmp_path / "t"), Failures(), logging.StreamHandler(terminal)
    shown.quieten(snakemakes)
    for job in range(done):
        say([shown], LogEvent.PROGRESS, logging.INFO, done=job + 1, total=3)
    terminal.write("^C")  # as a terminal does
    press()
    fail([snakemakes, shown, failures], tmp_path / "1.log", "")
    say([snakemakes, shown, failures], None, msg="WorkflowError: At least one job did not complete successfully.")
    shown.close()
    failures.close()
    line = "1 of 3 jobs (33%)" if done else ""
    assert terminal.getvalue() == f"{line}^C\n{interruption.SENTENCE}\n"


def test_a_job_that_failed_before_keeps_its_line(tmp_path: Path) -> None:
    failures = Failures()
    fail([failures], tmp_path / "1.log", "error: the checkpoint is damaged; remove it")
    press()
    fail([failures], tmp_path / "2.log", "", jobid=2)
    told, last = failures.lines()
    assert told == f"error: attack {tmp_path}/1.log: the checkpoint is damaged; remove it"
    assert last == interruption.SENTENCE


@pytest.mark.parametrize(
    "text",
    [
        "epoch 1\ninterrupted; run the same command again to go on\n",
        'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nKeyboardInterrupt\n',
    ],
)
def test_a_job_that_alone_was_interrupted_is_no_defect(text: str, tmp_path: Path) -> None:
    failures = Failures()
    fail([failures], tmp_path / "1.log", text)
    (line,) = failures.lines()
    assert line.endswith("1.log: stopped by Ctrl-C; run the same command again to go on")
