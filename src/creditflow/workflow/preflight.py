"""What a workflow needs of the machine, looked at before any job starts. Imports nothing heavy."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from creditflow.core.errors import UserError


def check_apptainer() -> None:
    """Raises UserError if there is no Apptainer (or Singularity) to run containers with."""
    if not (shutil.which("apptainer") or shutil.which("singularity")):
        raise UserError(
            "containers are asked for, but apptainer is not installed (or not loaded) here; install it"
            " (https://apptainer.org/docs/admin/main/installation.html), or run without --use-apptainer"
        )


def check_slurm(status_command: str | None) -> None:
    """Raises UserError if jobs cannot be submitted from here, or `status_command` would wait for ever for their end."""
    missing = [command for command in ("sbatch", "squeue", "scancel") if not shutil.which(command)]
    if missing:
        raise UserError(
            f"the slurm executor needs {', '.join(missing)}; run on the cluster's login node, or use another profile"
        )
    if status_command == "sacct":
        try:
            done = subprocess.run(
                ["sacct", "--noheader", "--starttime=now"], capture_output=True, text=True, timeout=60, check=False
            )
            said = None if done.returncode == 0 else " ".join(done.stderr.split())
        except subprocess.TimeoutExpired:
            said = "not within a minute"
        if said is not None:
            raise UserError(
                f"sacct does not answer on this cluster ({said}), so a job's end would never be seen;"
                " use `slurm-status-command: squeue` in the profile"
            )


def bind_into_containers(paths: Iterable[str]) -> None:
    """Makes those of the host's folders that exist visible, read-only, in the containers of all jobs."""
    there = [str(path.resolve()) for path in map(Path, paths) if path.exists()]
    before = os.environ.get("APPTAINER_BIND")
    os.environ["APPTAINER_BIND"] = ",".join([*([before] if before else []), *(f"{path}:{path}:ro" for path in there)])
