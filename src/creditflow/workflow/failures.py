"""Why jobs failed, one line each, from what Snakemake, SLURM and the jobs wrote. It imports nothing heavy."""

import re
from collections.abc import Iterable
from pathlib import Path

_BLOCK = re.compile(r"^Error in (?:local)?rule (\w+)[^\n]*:\n(.*?)(?=^\[|^Error in |\Z)", re.MULTILINE | re.DOTALL)
_LOGS = re.compile(r"^\s+log: ([^\n]*?)(?: \(check|$)", re.MULTILINE)

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


def explain_failures(snakemake_log: str) -> list[str]:
    """Returns one line for each job that failed, from the text of Snakemake's log. A job's last attempt counts."""
    reasons = {}
    for rule, body in _BLOCK.findall(snakemake_log):
        named = _LOGS.search(body)
        logs = [Path(path) for path in named[1].split(", ")] if named else []
        reasons[rule, *logs[:1]] = _reason(body, logs)
    return [f"error: {' '.join(map(str, job))}: {reason}" for job, reason in reasons.items()]


def _reason(body: str, logs: Iterable[Path]) -> str:
    written = [log.read_text(errors="replace") for log in logs if log.is_file()]
    lines = [line for text in written[:1] for line in text.splitlines()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    everything = "\n".join([body, *written])
    for pattern, advice in _ADVICE:
        if match := re.search(pattern, everything):
            return advice.format(*match.groups())
    if any(line.startswith("Traceback") for line in lines):
        return f"{lines[-1]} (a defect of creditflow: please report it, with its log)"
    return _SILENT
