"""Why jobs failed, one line each, from what Snakemake, SLURM and the jobs wrote. It imports nothing heavy."""

import logging
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creditflow.workflow import interruption

#: What SLURM writes into its job log or answers to Snakemake, and what to do about it. The first that matches counts.
_ADVICE = (
    (
        r"invalid partition specified: (\S+)",
        "the cluster has no partition {0}; name one that `sinfo` lists as slurm_partition in the profile",
    ),
    (r"[Ii]nvalid account", "the cluster does not know the account; name yours as slurm_account in the profile"),
    (
        r"OUT_OF_MEMORY|[Ee]xceeded (?:job )?memory limit|oom[-_ ]kill|out-of-memory",
        "killed for lack of memory; raise its mem_mb in the profile",
    ),
    (  # while a stage loads its libraries
        r"(?m)(^MemoryError\b.*|std::bad_alloc|^\w+: .*failed to map segment from shared object)",
        "out of memory ({0}); raise its mem_mb in the profile, or run fewer jobs at once",
    ),
    (
        r"'TIMEOUT'|DUE TO TIME LIMIT",
        "out of time; raise its runtime in the profile (training goes on from its checkpoint)",
    ),
    (r"sbatch failed\. The error message was '([^'\n]*)", "sbatch refused the job: {0}"),
    (
        r"is: '(CANCELLED|NODE_FAIL|PREEMPTED|DEADLINE|BOOT_FAIL)'",
        "SLURM ended the job ({0}); run the same command again",
    ),
)

_SILENT = (
    "ended without a word, as a process killed for lack of memory does; raise its mem_mb in the profile, or run fewer"
    " jobs at once"
)


@dataclass(frozen=True)
class Failure:
    """The last failed attempt of a job."""

    rule: str
    logs: tuple[Path, ...]
    """The job's own log, and then those of a scheduler."""
    message: str
    """What the executor said of the job; empty if nothing."""

    def line(self) -> str:
        """Returns one line: the rule, the job's log, and the reason."""
        return f"error: {' '.join([self.rule, *map(str, self.logs[:1])])}: {_reason(self.message, self.logs)}"


class Failures(logging.Handler):
    """The failed jobs of a run, from the events that Snakemake sends to each of its log handlers.

    `--quiet` and `--verbose` only decide what Snakemake's own handlers print. When Snakemake closes its handlers, this
    one prints a line for each job that failed and was not made by a later attempt. So the lines are the last ones, and
    they appear without the workflow's `onerror`, too. After Ctrl-C, one sentence says so: the jobs that it ended have
    no line.

    Args:
        concerns: shell command of a failed job -> whether to explain it.
        is_silent: whether Snakemake prints no errors at all (`--quiet all`), so that those that stop it before its jobs
            are printed here.
    """

    def __init__(self, concerns: Callable[[str], bool] = lambda command: True, *, is_silent: bool = False) -> None:
        super().__init__(logging.INFO)
        self._concerns = concerns
        self._is_silent = is_silent
        self._failed: dict[int, Failure] = {}
        self._group_logs: dict[int, list[str]] = {}
        self._errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Notes what an event says of a job. A job's new attempt makes its earlier failure forgotten."""
        event = getattr(getattr(record, "event", None), "name", None)
        said: dict[str, Any] = record.__dict__
        if interruption.came():
            return
        if event == "JOB_ERROR":
            self._note(said)
        elif event == "GROUP_ERROR":
            self._group_logs |= {job["jobid"]: said["aux_logs"] for job in said["job_error_info"]}
        elif event == "JOB_INFO":
            self._failed.pop(said["jobid"], None)
        elif record.levelno >= logging.ERROR:
            self._errors.append(record.getMessage())

    def _note(self, said: dict[str, Any]) -> None:
        if not self._concerns(said["shellcmd"] or ""):
            return
        logs = [*said["log"], *self._group_logs.pop(said["jobid"], [])]
        message = said["rule_msg"] or ""
        if "see log for details" in message:  # several jobs were refused at once, for a reason that was said before
            message = " ".join([message, *self._errors[-1:]])
        self._failed[said["jobid"]] = Failure(said["rule_name"], tuple(map(Path, logs)), message)

    def lines(self) -> list[str]:
        """Returns one line for each failed job, or else for what stopped Snakemake itself.

        The first are jobs that ended with an error, and jobs whose outputs Snakemake refused. The others are errors of
        the disk, which Snakemake tells by a traceback, and with `is_silent` all errors. After Ctrl-C, the last line
        says what becomes of the run.
        """
        return [*self._failures(), *([interruption.SENTENCE] if interruption.came() else [])]

    def _failures(self) -> list[str]:
        refused = list(dict.fromkeys(filter(None, map(_of_outputs, self._errors))))
        if self._failed or refused:
            return [*(failure.line() for failure in self._failed.values()), *(f"error: {line}" for line in refused)]
        errors = [_of_the_disk(text) or (" ".join(text.split()) if self._is_silent else "") for text in self._errors]
        return [f"error: {error}" for error in dict.fromkeys(errors) if error]

    def close(self) -> None:
        """Prints why jobs failed, once. Snakemake calls this at its end, after all that it prints."""
        lines = self.lines()
        self._failed.clear()
        self._errors.clear()
        if lines:
            print(*lines, sep="\n", file=sys.stderr, flush=True)
        super().close()


def runs_a_script_of(folder: Path) -> Callable[[str], bool]:
    """Returns a function that says whether a shell command runs a Python script of a folder."""

    def runs(command: str) -> bool:
        try:
            words = shlex.split(command)
        except ValueError:  # no command of this workflow
            return False
        return words[:1] == ["python"] and len(words) > 1 and Path(words[1]).resolve().parent == folder.resolve()

    return runs


#: What Snakemake says of a job that ended well and whose outputs it does not take: the rule, and the reason.
_REFUSED_OUTPUTS = re.compile(r'\w+ in rule (\w+) in file "[^"\n]*", line \d+:\n(.*)', re.DOTALL)
_CLOCK_SKEW = re.compile(r"Output (\S+) has older modification time .* than input (\S+) \(")


def _of_outputs(text: str) -> str:
    """Returns one line for Snakemake's text about a job whose outputs it does not take; else ''."""
    said = _REFUSED_OUTPUTS.fullmatch(text)
    if said is None:
        return ""
    if skew := _CLOCK_SKEW.match(said[2]):
        return (
            f"{said[1]}: {skew[2]} comes from the future, by this machine's clock, so its outputs were removed;"
            " have the clocks agree, wait until that time has come, or move the times of all results back alike"
        )
    return f"{said[1]}: {' '.join(said[2].split())}"


def _of_the_disk(text: str) -> str:
    """Returns one line for the text of an OSError of Snakemake's own, such as that of a full disk; else ''."""
    match = re.search(r"^\w*Error: \[Errno \d+\] ([^\n]*)", text, re.MULTILINE)
    return f"{match[1]}; make room, or make it writable, then run the same command again" if match else ""


#: The end of a traceback that a file which is not valid Python leads to: its path and line, and what is wrong with it.
_NOT_PYTHON = re.compile(
    r'  File "([^"\n]+)", line (\d+)\n(?:    .*\n)*(?:SyntaxError|IndentationError|TabError): (.*)\Z'
)


def _reason(message: str, logs: Iterable[Path]) -> str:
    written = [log.read_text(encoding="utf-8", errors="replace") for log in logs if log.is_file()]
    lines = [line for text in written[:1] for line in text.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    everything = "\n".join([message, *written])
    for pattern, advice in _ADVICE:
        if match := re.search(pattern, everything):
            return advice.format(*match.groups())
    if any(line.startswith("stopped by SIGTERM") or line == "Terminated" for line in lines):  # the stage, or Bash
        return "stopped by SIGTERM; run the same command again to go on"
    if lines and re.match(r"interrupted;|KeyboardInterrupt$", lines[-1]):  # the stage, or Python while it loads
        return "stopped by Ctrl-C; run the same command again to go on"
    if syntax := _NOT_PYTHON.search("\n".join(lines)):
        return f"{syntax[1]}, line {syntax[2]}: not valid Python ({syntax[3]}); mend it, or move it away"
    if any(line.startswith("Traceback") for line in lines):
        return f"{lines[-1]} (a defect of creditflow: please report it, with its log)"
    return _SILENT
