"""The line of progress: what it says of jobs, time left and time spent, on a terminal and elsewhere."""

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from creditflow.workflow import progress
from creditflow.workflow.progress import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def screen(self) -> str:
        """What a person sees: whatever stood before an erased line's beginning is gone."""
        return "\n".join(line.rpartition("\x1b[2K")[2] for line in self.getvalue().split("\n"))


class Run:
    """Sends the events of a run as Snakemake does, at times that a test chooses."""

    def __init__(self, stream: io.StringIO, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "time", lambda: self.now)
        self.shown = Progress(stream, folder / "state" / "times.txt")
        self.said = logging.StreamHandler(stream)
        self.shown.quieten(self.said)
        self.done = 0

    def say(self, event: LogEvent | None, level: int = logging.INFO, msg: str = "", **said: Any) -> None:
        record = logging.makeLogRecord({"levelno": level, "event": event, "msg": msg, "created": self.now} | said)
        self.said.handle(record)  # Snakemake's own handler is the first
        self.shown.handle(record)

    def start(self, job: int, rule: str, threads: int = 1, **wildcards: str) -> None:
        self.say(LogEvent.JOB_INFO, jobid=job, rule_name=rule, threads=threads, wildcards=wildcards)

    def finish(self, job: int, total: int) -> None:
        self.done += 1
        self.say(LogEvent.JOB_FINISHED, job_id=job, msg=f"Finished jobid: {job}")
        self.say(LogEvent.PROGRESS, done=self.done, total=total)


def attacks(run: Run, n: int, seconds: float) -> None:
    """A run of `n` attacks, one after the other, of which half are done."""
    run.say(LogEvent.RUN_INFO, stats={"attack": n, "total": n})
    for job in range(n // 2):
        run.start(job, "attack", attack="pgd" if job % 2 else "fgsm")
        run.now += seconds
        run.finish(job, n)


def test_a_terminal_shows_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(terminal := Terminal(), tmp_path, monkeypatch)
    attacks(run, 40, 9.0)
    assert terminal.screen() == "20 of 40 jobs (50%), about 3 min left"  # 20 jobs of 9 s


def test_another_stream_gets_a_line_for_each_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(stream := io.StringIO(), tmp_path, monkeypatch)
    attacks(run, 40, 1.0)
    lines = stream.getvalue().splitlines()
    assert lines == [
        f"{n} of 40 jobs ({100 * n // 40}%), about {left} left"
        for n, left in [(4, "40 s"), (8, "30 s"), (12, "30 s"), (16, "20 s"), (20, "20 s")]
    ]


def test_time_left_is_that_of_the_kinds_that_remain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(terminal := Terminal(), tmp_path, monkeypatch)
    run.say(LogEvent.RUN_INFO, stats={"finetune": 2, "evaluate": 10, "total": 12})
    for job, rule, seconds in ((0, "finetune", 300), (1, "evaluate", 1)):
        run.start(job, rule)
        run.now += seconds
        run.finish(job, 12)
    assert terminal.screen().endswith("about 5 min left")  # one of 300 s and nine of 1 s, not ten of 150 s
    run.start(2, "finetune")
    run.now += 240
    run.start(3, "evaluate")
    run.now += 1
    run.finish(3, 12)
    assert terminal.screen().endswith("about 1 min 10 s left")  # 60 s, and eight of 1 s


def test_warnings_and_errors_take_the_place_of_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(terminal := Terminal(), tmp_path, monkeypatch)
    attacks(run, 4, 1.0)
    run.say(None, msg="Select jobs to execute...")
    run.say(LogEvent.ERROR, logging.ERROR, "MissingInputException: all of it")
    assert terminal.screen() == "MissingInputException: all of it\n"
    run.say(None, logging.WARNING, "a warning")
    run.say(None, msg="Will exit after finishing currently running jobs (scheduler).")
    run.say(None, logging.ERROR, "WorkflowError:\nAt least one job did not complete successfully.")
    run.shown.close()
    assert terminal.screen().splitlines()[1:] == [
        "a warning",
        "Will exit after finishing currently running jobs (scheduler).",
        "WorkflowError:",
        "At least one job did not complete successfully.",
    ]


def fail(run: Run, job: int) -> None:
    """What Snakemake says of a job that failed, in its order."""
    run.start(job, "attack", attack="pgd")
    run.say(LogEvent.ERROR, logging.ERROR, "RuleException:\nCalledProcessError in file x, line 1:\nCommand python")
    run.say(LogEvent.JOB_ERROR, logging.ERROR, "Error in rule attack: all of it", jobid=job)


def test_failed_jobs_are_counted_and_not_told_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(terminal := Terminal(), tmp_path, monkeypatch)
    attacks(run, 4, 1.0)
    fail(run, 7)
    assert terminal.screen() == "2 of 4 jobs (50%), 1 failed"
    run.start(7, "attack", attack="pgd")  # a second attempt
    run.finish(7, 4)
    assert "failed" not in terminal.screen()
    fail(run, 8)
    run.say(None, logging.ERROR, "Exiting because a job execution failed. Look above for error messages")
    run.say(None, logging.ERROR, "WorkflowError:\nAt least one job did not complete successfully.")
    run.shown.close()
    assert terminal.screen() == "3 of 4 jobs (75%), 1 failed\n"  # and then the reasons, as failures.py tells them


def test_failures_that_nobody_else_tells_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(terminal := Terminal(), tmp_path, monkeypatch)
    run.shown._tells_failures = False
    fail(run, 1)
    assert "Command python" in terminal.screen() and "Error in rule attack: all of it" in terminal.screen()


def test_it_is_said_that_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(stream := io.StringIO(), tmp_path, monkeypatch)
    run.say(None, msg="Building DAG of jobs...")
    run.say(None, msg="Nothing to be done (all requested files are present and up to date).")
    assert stream.getvalue() == "Nothing to be done (all requested files are present and up to date).\n"


def test_the_last_sentence_adds_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(io.StringIO(), tmp_path, monkeypatch)
    run.say(LogEvent.RUN_INFO, stats={"finetune": 1, "attack": 8, "total": 9})
    run.start(0, "finetune", threads=2)
    run.now += 50
    run.finish(0, 9)
    for job in range(1, 9):
        run.start(job, "attack", attack=f"a{job}")
        run.now += job
        run.finish(job, 9)
    run.start(9, "attack", attack="fails")
    run.say(LogEvent.JOB_ERROR, logging.ERROR, jobid=9)
    run.shown.close()
    said = (tmp_path / "state/times.txt").read_text(encoding="utf-8")
    assert said == (
        "where the time went (seconds of jobs x threads):"
        " fine-tuning 100, a8 8, a7 7, a6 6, a5 5, a4 4, other 6; 136 in all, 1 min 26 s\n"
    )


def test_a_run_of_nothing_says_nothing_and_an_older_sentence_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/times.txt").write_text("of an earlier run", encoding="utf-8")
    run = Run(stream := io.StringIO(), tmp_path, monkeypatch)
    run.shown.close()
    assert not (tmp_path / "state/times.txt").exists() and stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (230, "3 min 50 s"), (7500, "2 h 5 min")]
)
def test_lengths_of_time(seconds: float, said: str) -> None:
    assert duration(seconds) == said
