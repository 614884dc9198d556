"""What a workflow needs of the machine, looked at before any job starts. Imports nothing heavy."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from creditflow.core.errors import UserError


def check_place(clone: Path) -> None:
    """Raises UserError if the path of the clone is one in which Snakemake would look for wildcards."""
    if {"{", "}"} & set(str(clone)):
        raise UserError(f"{clone} has braces, which Snakemake takes for wildcards; rename or move this folder")


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
                ["sacct", "--noheader", "--starttime=now"],
                capture_output=True,
                encoding="utf-8",
                timeout=60,
                check=False,
            )
            said = None if done.returncode == 0 else " ".join(done.stderr.split())
        except subprocess.TimeoutExpired:
            said = "not within a minute"
        if said is not None:
            raise UserError(
                f"sacct does not answer on this cluster ({said}), so a job's end would never be seen;"
                " use `slurm-status-command: squeue` in the profile"
            )


def check_writable(folders: Iterable[Path]) -> None:
    """Raises UserError if no file can be written in one of some folders, or in what is to become their parent."""
    there = dict.fromkeys(_nearest_that_exists(folder) for folder in folders)
    for folder in there:
        try:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".creditflow-", mode="wb") as file:
                file.write(b" " * 4096)
        except OSError as error:
            raise UserError(
                f"nothing can be written in {folder} ({error.strerror}), where this run keeps what it makes; make it a"
                " folder that you can write, make room on its disk, or run in another folder with --directory"
            ) from None


def check_permissions(folders: Iterable[Path]) -> None:
    """Raises UserError for folders that may not be written; quicker than `check_writable`, which writes."""
    there = dict.fromkeys(_nearest_that_exists(folder) for folder in folders)
    check_writable(folder for folder in there if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)))


def _nearest_that_exists(path: Path) -> Path:
    """Returns the path, or the lowest folder above it that exists; a link to nothing exists."""
    return path if os.path.lexists(path) or path == path.parent else _nearest_that_exists(path.parent)


def bind_into_containers(paths: Iterable[str]) -> None:
    """Makes those of the host's folders that exist visible, read-only, in the containers of all jobs."""
    there = [str(path.resolve()) for path in map(Path, paths) if path.exists()]
    before = os.environ.get("APPTAINER_BIND")
    os.environ["APPTAINER_BIND"] = ",".join([*([before] if before else []), *(f"{path}:{path}:ro" for path in there)])


def outside(paths: Iterable[Path]) -> list[str]:
    """Returns those paths that containers do not see, as they lie outside the working directory.

    In the place of a file stands its folder, as a module of a model may import what lies beside it.
    """
    folders = (path if path.is_dir() else path.parent for path in map(Path.resolve, paths))
    return sorted({str(folder) for folder in folders if not folder.is_relative_to(Path.cwd().resolve())})
