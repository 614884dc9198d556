"""The container image: its name, and what is said where it is missing. Runs inside it are CI's (see .ci/)."""

import os
import shutil
from pathlib import Path

import pytest

from creditflow.compute.container import digest_path, running_container
from creditflow.core.errors import UserError
from creditflow.workflow.container import FLAVOURS, check_image, image_path
from helpers import ROOT, project, snakemake

LOCK = ROOT / "envs/requirements.txt"


def test_a_new_lock_version_or_flavour_is_another_image(tmp_path: Path) -> None:
    lock = Path(shutil.copy(LOCK, tmp_path / "lock"))
    names = {image_path(tmp_path, lock, flavour) for flavour in FLAVOURS}
    assert image_path(tmp_path, LOCK, "cuda") in names
    lock.write_text(lock.read_text() + "one-more==1.0\n")
    names |= {image_path(tmp_path, lock, flavour) for flavour in FLAVOURS}
    assert len(names) == 4


def test_a_missing_image_is_one_line_with_the_command_that_builds_it(tmp_path: Path) -> None:
    wanted = image_path(tmp_path, LOCK, "cpu")
    with pytest.raises(UserError, match=r"there is no image .*; build it with `make container FLAVOUR=cpu`"):
        check_image(wanted, "cpu")
    (tmp_path / "creditflow-0.0.1-cpu-0123456789.sif").touch()
    with pytest.raises(UserError, match=r"creditflow-0.0.1-cpu-0123456789.sif belongs to another lock"):
        check_image(wanted, "cpu")
    wanted.touch()
    digest_path(wanted).write_text("abc  name\n")
    check_image(wanted, "cpu")


@pytest.mark.parametrize("variable", ["APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"])
def test_a_record_names_the_image_it_was_made_in(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APPTAINER_CONTAINER", raising=False)
    monkeypatch.delenv("SINGULARITY_CONTAINER", raising=False)
    assert running_container() is None
    sif = tmp_path / "creditflow.sif"
    monkeypatch.setenv(variable, str(sif))
    assert running_container() == {"name": "creditflow.sif", "sha256": None}
    digest_path(sif).write_text("abc  creditflow.sif\n")
    assert running_container() == {"name": "creditflow.sif", "sha256": "abc"}


@pytest.fixture
def apptainer(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any machine's Apptainer, or what says its version: nothing here comes to run a container."""
    if not shutil.which("apptainer"):
        stand_in = tmp_path_factory.mktemp("bin") / "apptainer"
        stand_in.write_text("#!/bin/sh\necho apptainer version 1.4.0\n")
        stand_in.chmod(0o755)
        monkeypatch.setenv("PATH", f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--use-apptainer", "--sdm=apptainer"])
def test_a_workflow_without_its_image_ends_before_any_job(flag: str, tmp_path: Path, apptainer: None) -> None:
    folder = project(tmp_path)
    for path in (folder / "containers").glob("*.s*"):
        path.unlink()
    assert snakemake(folder, flag, "-n").returncode == 0  # looking is allowed
    done = snakemake(folder, flag)
    assert done.returncode == 2
    assert done.stdout.count("error: there is no image containers/creditflow-") == 1
    assert not (folder / "results").exists()
