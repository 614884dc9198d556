"""Why jobs failed: one line for each, from Snakemake's events, and the logs of the stage and of SLURM."""

import logging
from pathlib import Path
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent

from creditflow.workflow.failures import Failures, runs_a_script_of
from helpers import ROOT

FURTHER = "For further error details see the cluster/cloud log and the log files of the involved rule(s)."


def say(failures: Failures, event: LogEvent | None, **said: Any) -> None:
    """Sends an event as Snakemake does."""
    failures.handle(logging.makeLogRecord({"levelno": logging.ERROR, "event": event, "msg": ""} | said))


def fail(failures: Failures, rule: str, *logs: Path, message: str = "", jobid: int = 3, command: str = "") -> None:
    command = command or f"python src/{rule}.py > {logs[0]} 2>&1"
    said = {"rule_name": rule, "rule_msg": message, "jobid": jobid, "log": list(map(str, logs)), "shellcmd": command}
    say(failures, LogEvent.JOB_ERROR, **said)


FAILED_JOB = "SLURM-job '3' failed, SLURM status is: 'FAILED'. "
REFUSED = "SLURM sbatch failed. The error message was '{}'.\n"


@pytest.mark.parametrize(
    ("message", "stage_log", "slurm_log", "expected"),
    [
        (
            "",
            "epoch 1\nerror: model.json is not a sidecar; move it away\n",
            None,
            "model.json is not a sidecar; move it away",
        ),
        ("", "stopped by SIGTERM; run the same command again to go on\n", None, "stopped by SIGTERM; run the same"),
        ("", "Terminated\n", None, "stopped by SIGTERM; run the same command again to go on"),
        (
            "SLURM-job '3' failed, SLURM status is: 'TIMEOUT'. ",
            "stopped by SIGTERM; run the same command again to go on\n",
            None,
            "out of time; raise its runtime",
        ),
        ("", "epoch 1: loss 2\n", None, "ended without a word, as a process killed for lack of memory does"),
        ("", None, None, "ended without a word"),
        (
            "",
            "Traceback (most recent call last):\n  File x\nValueError: no\n",
            None,
            "ValueError: no (a defect of creditflow",
        ),
        (FAILED_JOB.replace("FAILED", "OUT_OF_MEMORY"), "epoch 1\n", "", "killed for lack of memory; raise its mem_mb"),
        (FAILED_JOB, "", "slurmstepd: error: Detected 1 oom_kill event", "killed for lack of memory"),
        ("", "Traceback (most recent call last):\n  File x\nMemoryError\n", None, "out of memory (MemoryError); raise"),
        (
            "",
            "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc\nAborted\n",
            None,
            "out of memory (std::bad_alloc); raise its mem_mb",
        ),
        (
            "",
            "Traceback (most recent call last):\n  File x\n"
            "ImportError: libtorch_cpu.so: failed to map segment from shared object\n",
            None,
            "out of memory (ImportError: libtorch_cpu.so: failed to map segment",
        ),
        (FAILED_JOB, "", "slurmstepd: error: Exceeded job memory limit", "killed for lack of memory"),
        (FAILED_JOB.replace("FAILED", "TIMEOUT"), "", "", "out of time; raise its runtime"),
        (FAILED_JOB.replace("FAILED", "CANCELLED"), "", "", "SLURM ended the job (CANCELLED)"),
        (
            REFUSED.format("sbatch: error: invalid partition specified: x\nsbatch: error: y"),
            None,
            None,
            "the cluster has no partition x; name one that `sinfo` lists",
        ),
        (REFUSED.format("sbatch: error: no nodes"), None, None, "sbatch refused the job: sbatch: error: no nodes"),
    ],
)
def test_each_failed_job_is_explained_in_one_line(
    message: str, stage_log: str | None, slurm_log: str | None, expected: str, tmp_path: Path
) -> None:
    paths = [tmp_path / "stage.log"]
    if stage_log is not None:
        paths[0].write_text(stage_log, encoding="utf-8")
    if slurm_log is not None:
        paths.append(tmp_path / "3.log")
        paths[1].write_text(slurm_log, encoding="utf-8")
    failures = Failures()
    fail(failures, "finetune", paths[0], message=f"SLURM status is: 'TIMEOUT'. {FURTHER}")
    say(failures, LogEvent.JOB_INFO, jobid=3)
    assert failures.lines() == []  # the first attempt no longer counts once there is another
    fail(failures, "finetune", *paths, message=message + FURTHER)
    (line,) = failures.lines()
    assert line.startswith(f"error: finetune {paths[0]}: {expected}")


def test_jobs_that_succeeded_need_no_explanation() -> None:
    failures = Failures()
    say(failures, LogEvent.JOB_INFO, jobid=3, levelno=logging.INFO)
    say(failures, LogEvent.JOB_FINISHED, job_id=3, levelno=logging.INFO)
    assert failures.lines() == []


def test_jobs_of_a_group_have_the_groups_logs(tmp_path: Path) -> None:
    (tmp_path / "group.log").write_text("slurmstepd: error: Detected 1 oom_kill event", encoding="utf-8")
    failures = Failures()
    info = [{"jobid": number} for number in (1, 2)]
    say(failures, LogEvent.GROUP_ERROR, aux_logs=[str(tmp_path / "group.log")], job_error_info=info)
    for number in (1, 2):
        fail(failures, "attack", tmp_path / f"{number}.log", jobid=number)
    lines = failures.lines()
    assert len(lines) == 2 and all("killed for lack of memory; raise its mem_mb" in line for line in lines)


def test_jobs_that_were_refused_together_have_the_reason_that_was_said_before(tmp_path: Path) -> None:
    failures = Failures()
    say(failures, None, msg=REFUSED.format("sbatch: error: invalid partition specified: x"))
    fail(failures, "attack", tmp_path / "1.log", message="Part of failed array sbatch submission; see log for details.")
    (line,) = failures.lines()
    assert "the cluster has no partition x" in line


SKEW = """WorkflowError in rule make_table in file "/a b/rules/report.smk", line 47:
Output results/t.csv has older modification time (2026-11-26 04:13:43) than input results/s.parquet (2026-11-26 \
05:13:14). This could indicate a clock skew problem in your network. System time: 2026-11-26 04:13:43"""
MISSING = """MissingOutputException in rule make_table in file "/a b/rules/report.smk", line 47:
Job 3 completed successfully, but some output files are missing.
results/t.csv"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SKEW, "error: make_table: results/s.parquet comes from the future, by this machine's clock"),
        (MISSING, "error: make_table: Job 3 completed successfully, but some output files are missing. results/t.csv"),
    ],
)
def test_outputs_that_snakemake_does_not_take_have_a_line(text: str, expected: str) -> None:
    failures = Failures()
    for said in (text, text, "WorkflowError:\nAt least one job did not complete successfully."):
        say(failures, None, msg=said)
    (line,) = failures.lines()
    assert line.startswith(expected) and "\n" not in line


def test_jobs_of_another_workflow_are_left_to_it(tmp_path: Path) -> None:
    failures = Failures(runs_a_script_of(ROOT / "src"))
    for command in ("Rscript x.R", "python other/src/attack.py", "echo 'not closed", ""):
        fail(failures, "theirs", tmp_path / "1.log", command=command or "python")
    assert failures.lines() == []
    fail(failures, "ours", tmp_path / "1.log", command=f"python '{ROOT}/src/attack.py' --seed 1 > x 2>&1")
    assert len(failures.lines()) == 1


@pytest.mark.parametrize("is_silent", [False, True])
def test_what_stops_snakemake_itself_is_one_line(is_silent: bool, capsys: pytest.CaptureFixture[str]) -> None:
    failures = Failures(is_silent=is_silent)
    say(failures, LogEvent.ERROR, msg="Traceback\n  File x\n\nOSError: [Errno 28] No space left on device: 'x/y'\n")
    say(failures, LogEvent.ERROR, msg="WorkflowError:\nnothing   fits.")
    failures.close()
    failures.close()
    lines = ["error: No space left on device: 'x/y'; make room, or make it writable, then run the same command again"]
    assert capsys.readouterr().err.splitlines() == lines + ["error: WorkflowError: nothing fits."] * is_silent
