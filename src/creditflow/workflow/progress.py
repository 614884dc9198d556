"""The progress of a run in one line, and where its time went, from the events that Snakemake sends to log handlers.

`make demo` asks for it by the environment variable `CREDITFLOW_PROGRESS`. Then Snakemake's own stream shows only
warnings and errors, and why jobs failed stands once, at the end. Its log file in `.snakemake/log` still has everything.
"""

import logging
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, TextIO

from creditflow.workflow import interruption

#: The environment variable that asks for the line.
VARIABLE = "CREDITFLOW_PROGRESS"

#: The file that holds, after a run, the sentence that says where its time went.
TIMES = Path(".snakemake/creditflow/times.txt")

#: Share of the jobs after which a time is named, and the number of kinds that the last sentence names.
_KNOWN_FROM, _NAMED = 0.05, 6

#: What Snakemake says where all files are there, the only line of such a run, and once SIGTERM has come.
_MATTERS = ("Nothing to be done", "Will exit after finishing currently running jobs")

#: What Snakemake says of a job that failed, beside its event, and of a run that ends without all its files.
_COMMAND_FAILED = "RuleException:\nCalledProcessError in file"
_RUN_FAILED = (
    "Exiting because a job execution failed",
    "WorkflowError:\nAt least one job did not complete successfully",
)

#: How a person calls what the rules do; an attack is called by its own name.
_NAMES = {
    "fetch": "fetching",
    "prepare": "preparing",
    "pretrain": "pretraining",
    "finetune": "fine-tuning",
    "evaluate": "evaluation",
    "measure_gradients": "gradients",
    "make_table": "tables",
    "plot_figure": "figures",
    "train_population": "populations",
}


class Progress(logging.Handler):
    """Shows the jobs done, their share and the time left.

    A terminal shows one line, which is written anew; another stream gets a line for each tenth of the jobs. The time
    left is that of the remaining jobs if they take as long as those of their kind have taken so far, and if as many run
    at once as have run so far.

    Args:
        stream: where the line goes.
        times: the file for the last sentence; a file of an earlier run is removed.
        tells_failures: whether somebody else says at the end why jobs failed. Then nothing more is shown of them than
            their number.
    """

    def __init__(self, stream: TextIO, times: Path = TIMES, *, tells_failures: bool = True) -> None:
        super().__init__(logging.INFO)
        self._tells_failures = tells_failures
        self._stream, self._times = stream, times
        self._in_place = stream.isatty()
        self._waiting: Counter[str] = Counter()
        self._running: dict[int, tuple[str, str, int, float]] = {}
        self._failed: set[int] = set()
        self._done = self._total = 0
        self._taken: dict[str, list[float]] = defaultdict(list)
        self._cost: Counter[str] = Counter()
        self._began, self._tenth, self._is_shown, self._is_closed = time.time(), 0, False, False
        times.unlink(missing_ok=True)

    def quieten(self, handler: logging.Handler) -> None:
        """Has another handler of the same stream show warnings and errors only, each in place of the line.

        It also says that there is nothing to do. After Ctrl-C it shows nothing: what Snakemake says of each job that
        was ended is no news, and the line stays. The line tells how many jobs failed, and the run's end why.
        """
        handler.addFilter(self._lets_through)

    def _lets_through(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_failure = _event(record) in ("JOB_ERROR", "GROUP_ERROR") or text.startswith(_COMMAND_FAILED)
        is_known = is_failure or (bool(self._failed) and text.startswith(_RUN_FAILED))
        matters = is_failure or record.levelno >= logging.WARNING or text.startswith(_MATTERS)
        if interruption.came() or (is_known and self._tells_failures) or not matters:
            return False
        self._erase()
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Notes what an event says of a job, and shows the line when a job has ended or failed."""
        said: dict[str, Any] = record.__dict__
        match _event(record):
            case "RUN_INFO":
                self._waiting = Counter({rule: n for rule, n in said["stats"].items() if rule != "total"})
                self._total = sum(self._waiting.values())
            case "JOB_INFO":
                attack = dict(said["wildcards"] or {}).get("attack")
                kind = attack or _NAMES.get(said["rule_name"], said["rule_name"])
                self._running[said["jobid"]] = said["rule_name"], kind, said["threads"], record.created
                self._failed.discard(said["jobid"])  # another attempt
            case "JOB_FINISHED":
                self._finish(said["job_id"], record.created)
            case "JOB_ERROR":
                self._running.pop(said["jobid"], None)
                self._failed.add(said["jobid"])
                self._show(record.created)
            case "PROGRESS":
                self._done, self._total = said["done"], said["total"]
                self._show(record.created)

    def _finish(self, job: int, now: float) -> None:
        if job not in self._running:
            return
        rule, kind, threads, start = self._running.pop(job)
        self._waiting[rule] -= 1
        self._taken[rule].append(now - start)
        self._cost[kind] += threads * (now - start)  # type: ignore[assignment]  # a counter of seconds

    def _show(self, now: float) -> None:
        done, total = self._done, max(self._total, 1)
        tenth = 10 * done // total
        if interruption.came() or not (self._in_place or tenth > self._tenth):
            return
        self._tenth = tenth
        line = f"{done} of {total} jobs ({100 * done // total}%)"
        if self._failed:
            line += f", {len(self._failed)} failed"
        elif _KNOWN_FROM * total <= done < total and (seconds := self._left(now)) is not None:
            line += f", about {_roughly(seconds)} left"
        self._erase()
        self._stream.write(line if self._in_place else f"{line}\n")
        self._stream.flush()
        self._is_shown = self._in_place

    def _left(self, now: float) -> float | None:
        """Returns the seconds until the last job ends, as far as the jobs so far can tell; None before the first."""
        every = [seconds for taken in self._taken.values() for seconds in taken]
        if not every:
            return None
        usual = sum(every) / len(every)
        means = {rule: sum(taken) / len(taken) for rule, taken in self._taken.items()}
        spent = [now - start for *_, start in self._running.values()]
        work = sum(max(n, 0) * means.get(rule, usual) for rule, n in self._waiting.items()) - sum(spent)
        at_once = (sum(every) + sum(spent)) / max(now - self._began, 1e-3)
        return max(work, 0) / max(at_once, 1e-3)

    def sentence(self) -> str:
        """Returns where the time of the jobs went, the greatest part first; "" if no job has ended."""
        if not self._cost:
            return ""
        named = self._cost.most_common(_NAMED)
        total = sum(self._cost.values())
        parts = [f"{kind} {seconds:.0f}" for kind, seconds in named]
        if len(self._cost) > _NAMED:
            parts.append(f"other {total - sum(seconds for _, seconds in named):.0f}")
        whole = f"{total:.0f} in all, {duration(time.time() - self._began)}"
        return f"where the time went (seconds of jobs x threads): {', '.join(parts)}; {whole}"

    def _erase(self) -> None:
        if self._is_shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._is_shown = False

    def close(self) -> None:
        """Ends the line and keeps the sentence. Snakemake calls this at its end."""
        if not self._is_closed:
            self._is_closed = True
            if self._is_shown or (self._in_place and interruption.came()):  # a terminal shows what was pressed: ^C
                self._stream.write("\n")
                self._stream.flush()
            if sentence := self.sentence():
                self._times.parent.mkdir(parents=True, exist_ok=True)
                self._times.write_text(f"{sentence}\n", encoding="utf-8")
        super().close()


def show(stream: TextIO, *, tells_failures: bool) -> None:
    """Shows the progress of this process's run in place of what Snakemake prints of single jobs.

    `tells_failures` says that the run's end has the reason of each failed job.
    """
    from snakemake.logging import logger

    if any(isinstance(handler, Progress) for handler in logger.handlers):
        return  # two modules of one workflow
    progress = Progress(stream, tells_failures=tells_failures)
    for handler in logger.handlers:
        if handler.name == "DefaultStreamHandler":
            progress.quieten(handler)
    logger.addHandler(progress)


def duration(seconds: float) -> str:
    """Returns a length of time as a person says it, such as "3 min 50 s" or "2 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _roughly(seconds: float) -> str:
    """Returns a length of time as it can be foreseen: in minutes, or in tens of seconds."""
    return duration(60 * round(seconds / 60) if seconds >= 90 else max(10 * round(seconds / 10), 10)).removesuffix(
        " 0 s"
    )


def _event(record: logging.LogRecord) -> str | None:
    return getattr(getattr(record, "event", None), "name", None)
