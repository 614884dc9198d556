"""Where raw files come from: a local folder, a download, a Debian package, a file inside a Python package.

A source yields the decompressed, verified content of one named file, or raises NotAvailableError: nothing is trusted
before its SHA-256 is known to be right.
"""

import gzip
import http.client
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Protocol

from creditflow import files
from creditflow.errors import UserError, one_line

_TIMEOUT_S = 30
_APT_TIMEOUT_S = 600
_MAX_DOWNLOAD = 1 << 30


class NotAvailableError(Exception):
    """This source does not have the file; the message says why."""


class Source(Protocol):
    """Something that may have a dataset's files."""

    def __str__(self) -> str: ...

    def open(self, name: str, expected: str) -> bytes:
        """Returns the file's decompressed content, whose SHA-256 is `expected`. Raises NotAvailableError."""
        ...


def verified(content: bytes, expected: str, origin: str) -> bytes:
    """Returns the content, decompressed if it is gzip. Raises NotAvailableError if it is not what it should be."""
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error) as error:
        raise NotAvailableError(f"{origin} is truncated or corrupt ({one_line(error)})") from error
    if files.sha256(content) != expected:
        raise NotAvailableError(f"{origin} is truncated or corrupt (its SHA-256 is not {expected[:12]}...)")
    return content


@dataclass(frozen=True)
class Folder:
    """Files in a local folder, plain or as .gz."""

    path: Path

    def __str__(self) -> str:
        return f"folder {self.path}"

    def has(self, name: str) -> bool:
        """Says whether the folder holds the file, in either form."""
        return self._find(name) is not None

    def open(self, name: str, expected: str) -> bytes:
        found = self._find(name)
        if found is None:
            raise NotAvailableError(f"{self.path} has no {name} or {name}.gz")
        return verified(found.read_bytes(), expected, str(found))

    def _find(self, name: str) -> Path | None:
        return next((path for path in (self.path / name, self.path / f"{name}.gz") if path.is_file()), None)


@dataclass(frozen=True)
class Download:
    """Files below public addresses, tried in turn; `addresses` is a function so that a list of mirrors loads late."""

    addresses: Callable[[], Sequence[str]]

    def __str__(self) -> str:
        return "download"

    def open(self, name: str, expected: str) -> bytes:
        reasons = []
        for address in self.addresses():
            url = f"{address.rstrip('/')}/{name}.gz"
            try:
                with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
                    return verified(response.read(_MAX_DOWNLOAD), expected, url)
            except (OSError, http.client.HTTPException, ValueError, NotAvailableError) as error:
                reasons.append(f"{url}: {one_line(error)}")
        raise NotAvailableError("; ".join(reasons) or "no mirror is known")


class DebianPackage:
    """Files of a Debian package, fetched with `apt-get download` and unpacked without installing it."""

    def __init__(self, package: str, folder: str) -> None:
        self.package, self.folder = package, folder
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None

    def __str__(self) -> str:
        return f"Debian package {self.package}"

    def open(self, name: str, expected: str) -> bytes:
        if self._unpacked is None:
            try:
                self._unpacked = self._download()
            except (OSError, subprocess.SubprocessError) as error:
                raise NotAvailableError(one_line(error)) from error
        return Folder(Path(self._unpacked.name) / "root" / self.folder).open(name, expected)

    def _download(self) -> "tempfile.TemporaryDirectory[str]":
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise NotAvailableError("this machine has no apt-get")
        scratch = tempfile.TemporaryDirectory(prefix="creditflow-")
        for folder in ("lists/partial", "cache/archives/partial", "download"):
            Path(scratch.name, folder).mkdir(parents=True)
        # Package lists of its own: the system's may be missing or old, and renewing them takes root and, in a container, a writable image.
        own = {"Dir::State::Lists": "lists", "Dir::Cache": "cache"}
        options = [f"-o{key}={scratch.name}/{folder}" for key, folder in own.items()]
        for command in (["update"], ["download", self.package]):
            done = subprocess.run(
                ["apt-get", "-oAPT::Sandbox::User=", *options, *command],
                cwd=f"{scratch.name}/download", capture_output=True, text=True, timeout=_APT_TIMEOUT_S, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                raise NotAvailableError(f"apt-get {' '.join(command)} failed: {' '.join(done.stderr.split()) or 'it did not say why'}")
        archive = next(Path(scratch.name, "download").glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), f"{scratch.name}/root"], check=True, capture_output=True)
        return scratch


@dataclass(frozen=True)
class PackageFile:
    """Files that an installed Python package carries."""

    package: str

    def __str__(self) -> str:
        return f"Python package {self.package}"

    def open(self, name: str, expected: str) -> bytes:
        try:
            content = (resources.files(self.package) / f"{name}.gz").read_bytes()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise NotAvailableError(one_line(error)) from error
        return verified(content, expected, f"{self.package}/{name}.gz")


def fetch(dataset: str, checksums: Mapping[str, str], sources: Sequence[Source], search_paths: Sequence[Path], folder: Path) -> str:
    """Puts all files of a dataset, verified and decompressed, into `folder`, and returns the name of their source.

    Folders in `search_paths` that hold any of the files come first, then `sources` in their order.

    Raises UserError if a file in a search path is damaged (it is the user's own, so nothing else is tried), or if no
    source has all files; the message names each source and its reason.
    """
    if not checksums:
        return "nothing to fetch"
    reasons = []
    for path in search_paths:
        local = Folder(path)
        if not any(local.has(name) for name in checksums):
            reasons.append(f"{local}: not there")
            continue
        try:
            _copy(local, checksums, folder)
        except NotAvailableError as error:
            raise UserError(f"{dataset}: {error}; replace or remove it, then run the same command again") from error
        return str(local)
    for source in sources:
        try:
            _copy(source, checksums, folder)
        except NotAvailableError as error:
            reasons.append(f"{source}: {error}")
        else:
            return str(source)
    raise UserError(
        f"{dataset}: no source has it ({' | '.join(reasons)}); put {', '.join(checksums)} (or the .gz files) into a folder"
        " and name it in data.search_paths of config/config.yaml"
    )


def _copy(source: Source, checksums: Mapping[str, str], folder: Path) -> None:
    for name, expected in checksums.items():
        (folder / name).write_bytes(source.open(name, expected))
