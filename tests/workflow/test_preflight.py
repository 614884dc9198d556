"""What the workflow asks of a machine before any job: programs that answer, and folders that containers can see."""

import os
from pathlib import Path

import pytest

from creditflow.compute import gpus
from creditflow.core.errors import UserError
from creditflow.workflow import preflight
from helpers import ROOT, project, snakemake


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (preflight.check_apptainer, [], "apptainer is not installed"),
        (preflight.check_slurm, ["squeue"], "needs sbatch, squeue, scancel"),
    ],
)
def test_missing_programs_are_named(  # type: ignore[no-untyped-def]
    check, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=message):
        check(*arguments)


def test_sacct_that_cannot_answer_is_refused_before_it_makes_anyone_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("sbatch", "squeue", "scancel", "sacct"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2\nexit 1\n", encoding="utf-8"
        )
        (tmp_path / name).chmod(0o755)
    preflight.check_slurm("squeue")
    with pytest.raises(
        UserError, match=r"sacct does not answer .*storage is disabled.* use `slurm-status-command: squeue`"
    ):
        preflight.check_slurm("sacct")


def test_containers_see_the_folders_that_hold_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPTAINER_BIND", "/scratch")
    (tmp_path / "link").symlink_to(tmp_path)
    preflight.bind_into_containers([str(tmp_path / "link"), str(tmp_path / "missing")])
    assert os.environ["APPTAINER_BIND"] == f"/scratch,{tmp_path}:{tmp_path}:ro"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--workflow-profile", "profiles/gpu"],
            "error: gpu=1 is asked for, but there is no nvidia-smi on this machine",
        ),
        (["--workflow-profile", "profiles/slurm"], "error: containers are asked for, but apptainer is not installed"),
        (["--executor", "slurm", "--jobs", "1"], "error: the slurm executor needs sbatch, squeue, scancel"),
    ],
)
def test_a_profile_that_asks_for_what_is_not_there_ends_before_any_job(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh", "which", "git", "uname"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "project").mkdir()
    quick = (ROOT / "config/experiments/quick.yaml").read_text(encoding="utf-8")
    folder = project(tmp_path / "project", quick=quick)
    assert snakemake(folder, *arguments, "--sdm", "env-modules", "-n").returncode == 0  # looking is allowed anywhere
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    done = snakemake(folder, *arguments)
    assert done.returncode == 2, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert line.startswith(message)
    assert not (folder / "results").exists()
