"""Why jobs failed: one line for each, from the log of Snakemake, of the stage and of SLURM."""

from pathlib import Path

import pytest

from creditflow.workflow.failures import explain_failures

FAILED = """\
[Sat Nov 21 06:16:17 2026]
Error in rule {rule}:
    message: {message}For further error details see the cluster/cloud log and the log files of the involved rule(s).
    jobid: 0
    log: {log} (check log file(s) for error details)
    shell:
        python src/{rule}.py > {log} 2>&1
        (command exited with non-zero exit code)

[Sat Nov 21 06:16:18 2026]
Finished jobid: 3 (Rule: other)
"""

FAILED_JOB = "SLURM-job '3' failed, SLURM status is: 'FAILED'. "
REFUSED = "SLURM sbatch failed. The error message was '{}'.\n"


@pytest.mark.parametrize(
    ("message", "stage_log", "slurm_log", "expected"),
    [
        (
            "",
            "epoch 1\nerror: model.json is not a sidecar; delete it\n",
            None,
            "model.json is not a sidecar; delete it",
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
        paths[0].write_text(stage_log)
    if slurm_log is not None:
        paths.append(tmp_path / "3.log")
        paths[1].write_text(slurm_log)
    first_attempt = FAILED.format(rule="finetune", message="SLURM status is: 'TIMEOUT'. ", log=paths[0])
    text = first_attempt + FAILED.format(rule="finetune", message=message, log=", ".join(map(str, paths)))
    (line,) = explain_failures(text)
    assert line.startswith(f"error: finetune {paths[0]}: {expected}")


def test_jobs_that_succeeded_need_no_explanation() -> None:
    assert explain_failures("[Sat Nov 21 06:16:18 2026]\nFinished jobid: 3 (Rule: other)\n") == []
