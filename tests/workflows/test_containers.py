"""The container image: its name, and what is said where it is missing. Runs inside it are CI's (see .ci/)."""

import argparse
import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest

from creditflow.compute.container import digest_path, running_container
from creditflow.core.errors import UserError
from creditflow.core.files import sha256
from creditflow.workflow import container
from creditflow.workflow.container import FLAVOURS, check_image, image_path
from helpers import ROOT, project, snakemake
from scripts import module_from

LOCK = ROOT / "envs/requirements.txt"


def test_a_new_lock_version_or_flavour_is_another_image(tmp_path: Path) -> None:
    lock = Path(shutil.copy(LOCK, tmp_path / "lock"))
    names = {image_path(tmp_path, lock, flavour) for flavour in FLAVOURS}
    assert image_path(tmp_path, LOCK, "cuda") in names
    lock.write_text(lock.read_text(encoding="utf-8") + "one-more==1.0\n", encoding="utf-8")
    names |= {image_path(tmp_path, lock, flavour) for flavour in FLAVOURS}
    assert len(names) == 4


def test_a_missing_image_is_one_line_with_the_command_that_builds_it(tmp_path: Path) -> None:
    wanted = image_path(tmp_path, LOCK, "cpu")
    with pytest.raises(UserError, match=r"there is no image .*; build it with `make container FLAVOUR=cpu`"):
        check_image(wanted, "cpu")
    (tmp_path / "creditflow-0.0.1-cpu-0123456789.sif").touch()
    with pytest.raises(UserError, match=r"creditflow-0.0.1-cpu-0123456789.sif belongs to another lock"):
        check_image(wanted, "cpu")
    wanted.write_bytes(b"an image")
    with pytest.raises(UserError, match=r"nothing is known of .*\.sha256 does not give its SHA-256; build it with"):
        check_image(wanted, "cpu")
    digest_path(wanted).write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="does not give its SHA-256"):
        check_image(wanted, "cpu")
    note(wanted)
    check_image(wanted, "cpu")


def note(image: Path) -> None:
    digest_path(image).write_text(f"{sha256(image.read_bytes())}  {image.name}\n", encoding="utf-8")


@pytest.mark.parametrize("verified_before", [False, True])
def test_a_swapped_image_is_refused(verified_before: bool, tmp_path: Path) -> None:
    image = tmp_path / "creditflow.sif"
    image.write_bytes(b"an image")
    note(image)
    times = (image.stat().st_atime_ns, image.stat().st_mtime_ns)
    if verified_before:
        check_image(image, "cuda")
    (tmp_path / "other").write_bytes(b"my image")  # as many bytes, at the same time
    os.utime(tmp_path / "other", ns=times)
    (tmp_path / "other").replace(image)
    message = (
        f"creditflow.sif is not the image that was built: its SHA-256 begins with {sha256(b'my image')[:8]}, but"
        f" creditflow.sha256 says {sha256(b'an image')[:8]}; build it with `make container FLAVOUR=cuda`"
    )
    for _ in range(2):
        with pytest.raises(UserError, match=re.escape(message)):
            check_image(image, "cuda")


def test_an_image_that_did_not_change_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "creditflow.sif"
    image.write_bytes(b"an image")
    note(image)
    check_image(image, "cuda")
    with monkeypatch.context() as patch:
        patch.setattr(container, "file_sha256", lambda path: pytest.fail("read again"))
        check_image(image, "cuda")
    image.write_bytes(b"my image")
    note(image)  # built anew
    check_image(image, "cuda")
    digest_path(image).write_text(f"{'0' * 64}  creditflow.sif\n", encoding="utf-8")
    with pytest.raises(UserError, match="says 00000000"):
        check_image(image, "cuda")
    image.with_suffix(".verified").write_bytes(b"\xff damaged")
    note(image)
    check_image(image, "cuda")


def test_what_an_image_is_made_of_is_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = (ROOT / "containers/creditflow.def").read_text(encoding="utf-8")
    assert re.search(r"^    from=[\w/.-]+@sha256:[0-9a-f]{64}$", recipe, re.MULTILINE)
    assert "pip install" not in recipe  # envs/install.py does, and verifies
    copied = dict(re.findall(r"^    (envs/\S+) (/opt/\S+)$", recipe, re.MULTILINE))
    needed = re.findall(r'ENVS / "([\w.-]+)"', (ROOT / "envs/install.py").read_text(encoding="utf-8"))
    assert copied == {f"envs/{name}": f"/opt/creditflow/{name}" for name in {*needed, "install.py"}}


def test_debian_is_not_built_unverified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build = module_from("containers/build.py")
    options = argparse.Namespace(base="debootstrap", mirror="http://mirror", flavour="cuda", pip_options="")
    monkeypatch.setattr(build, "KEYRING", tmp_path / "keyring.gpg")
    with pytest.raises(UserError, match=r"keyring\.gpg, so Debian cannot be verified; install debian-archive-keyring"):
        build.check_sources(options)
    (tmp_path / "keyring.gpg").touch()
    build.check_sources(options)


@pytest.mark.parametrize("fails", ["", "debian.def", "creditflow.def"])
def test_debian_is_built_by_itself_and_is_what_the_image_starts_from(
    fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = module_from("containers/build.py")
    built: list[tuple[str, dict[str, str]]] = []

    def apptainer_build(definition: str, image: Path, values: dict[str, str], options: list[str]) -> bool:
        built.append((definition, values))
        if definition != fails:
            image.write_text(definition, encoding="utf-8")
        return image.exists()

    monkeypatch.setattr(build, "apptainer_build", apptainer_build)
    image = tmp_path / "creditflow.sif"
    with pytest.raises(UserError, match=r"failed; the last lines above say why$") if fails else nullcontext():
        base = build.debian(tmp_path, "http://mirror")
        build.build(image, {"bootstrap": "localimage", "from": str(base)}, [])
    expected = [
        ("debian.def", {"mirror": "http://mirror"}),
        ("creditflow.def", {"bootstrap": "localimage", "from": str(tmp_path / "debian.sif")}),
    ]
    assert built == expected[: 1 if fails == "debian.def" else 2]
    assert image.exists() == (not fails)


@pytest.mark.parametrize(("content", "said"), [(b"an image", ""), (b"my image", "is not the image that was built")])
def test_a_swapped_image_is_built_again(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = module_from("containers/build.py")
    image = tmp_path / "creditflow.sif"
    image.write_bytes(b"an image")
    note(image)
    image.write_bytes(content)
    assert build.is_built(image, "cuda") == (not said)
    out = capsys.readouterr().out
    assert said in out and out.count("\n") == bool(said)


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
    digest_path(sif).write_text("", encoding="utf-8")
    assert running_container() == {"name": "creditflow.sif", "sha256": None}
    digest_path(sif).write_text("abc  creditflow.sif\n", encoding="utf-8")
    assert running_container() == {"name": "creditflow.sif", "sha256": "abc"}


@pytest.fixture
def apptainer(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any machine's Apptainer, or what says its version: nothing here comes to run a container."""
    if not shutil.which("apptainer"):
        stand_in = tmp_path_factory.mktemp("bin") / "apptainer"
        stand_in.write_text("#!/bin/sh\necho apptainer version 1.4.0\n", encoding="utf-8")
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
