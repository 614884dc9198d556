"""Where raw files come from: a folder of the user's, a download, a Debian package, a file inside a Python package.

A source writes one named file, verified, or raises NotAvailableError: nothing is used before its checksum is known to be
right. MD5, which some datasets are published with, finds damage but not malice, so what is read from such files is read
with care (`archives.py`, `cifar.py`).
"""

import gzip
import hashlib
import http.client
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Protocol

from tqdm import tqdm

from creditflow.core import files
from creditflow.core.errors import UserError, one_line

_TIMEOUT_S = 30
_APT_TIMEOUT_S = 600
_CHUNK = 1 << 20
#: Bytes of a file that is decompressed in memory, and of one that is kept as published.
_MAX_CONTENT, _MAX_PUBLISHED = 1 << 30, 64 << 30


class NotAvailableError(Exception):
    """This source does not have the file; the message says why."""


class Source(Protocol):
    """Something that may have a dataset's files."""

    def __str__(self) -> str: ...

    def deliver(self, name: str, expected: str, target: Path) -> None:
        """Writes the file of this name to `target`; `expected` is a checksum as in `Dataset.checksums`.

        Raises NotAvailableError, and then leaves nothing at `target`.
        """
        ...


def as_published(expected: str) -> bool:
    """Says whether a file with this checksum is kept as it is published, compressed or not."""
    return expected.startswith("md5:")


def verified(content: bytes, expected: str, origin: str) -> bytes:
    """Returns the content, decompressed if it is gzip. Raises NotAvailableError if it is not what it should be."""
    try:
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, OSError, zlib.error) as error:
        raise NotAvailableError(f"{origin} is truncated or corrupt ({one_line(error)})") from error
    if files.sha256(content) != expected:
        raise NotAvailableError(f"{origin} is truncated or corrupt (its SHA-256 is not {expected[:12]}...)")
    return content


def receive(stream: IO[bytes], expected: str, target: Path, origin: str, size: int | None = None) -> None:
    """Writes a stream of `size` bytes, if that is known, to `target`. Raises NotAvailableError as `Source.deliver` does."""
    if not as_published(expected):
        target.write_bytes(verified(b"".join(_chunks(stream, _MAX_CONTENT, origin)), expected, origin))
        return
    md5 = hashlib.md5(usedforsecurity=False)
    try:
        with (
            target.open("wb") as file,
            tqdm(desc=target.name, total=size, unit="B", unit_scale=True, leave=False, disable=None) as bar,
        ):
            for chunk in _chunks(stream, _MAX_PUBLISHED, origin):
                md5.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
        if md5.hexdigest() != expected.removeprefix("md5:"):
            raise NotAvailableError(f"{origin} is truncated or corrupt (its MD5 is not {expected[4:16]}...)")
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _chunks(stream: IO[bytes], limit: int, origin: str) -> Iterator[bytes]:
    total = 0
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise NotAvailableError(f"{origin}: {one_line(error)}") from error
        if not chunk:
            return
        total += len(chunk)
        if total > limit:
            raise NotAvailableError(f"{origin} is larger than the {limit >> 30} GiB that are expected at most")
        yield chunk


@dataclass(frozen=True)
class Folder:
    """Files in a local folder, plain or as .gz; those that are kept as published under just their name."""

    path: Path

    def __str__(self) -> str:
        return f"folder {self.path}"

    def has(self, name: str, expected: str) -> bool:
        """Says whether the folder holds the file."""
        return self._find(name, expected) is not None

    def deliver(self, name: str, expected: str, target: Path) -> None:
        found = self._find(name, expected)
        if found is None:
            raise NotAvailableError(f"{self.path} has no {name}{'' if as_published(expected) else f' or {name}.gz'}")
        with found.open("rb") as stream:
            receive(stream, expected, target, str(found), found.stat().st_size)

    def _find(self, name: str, expected: str) -> Path | None:
        names = (name,) if as_published(expected) else (name, f"{name}.gz")
        return next((self.path / name for name in names if (self.path / name).is_file()), None)


@dataclass(frozen=True)
class Download:
    """Files below public addresses, tried in turn; `addresses` is a function so that a list of mirrors loads late.

    Files that are not kept as published are asked for as .gz.
    """

    addresses: Callable[[], Sequence[str]]

    def __str__(self) -> str:
        return "download"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        remote = name if as_published(expected) else f"{name}.gz"
        reasons = []
        for address in self.addresses():
            try:
                _download(f"{address.rstrip('/')}/{remote}", expected, target)
            except NotAvailableError as error:
                reasons.append(one_line(error))
            else:
                return
        raise NotAvailableError("; ".join(reasons) or "no mirror is known")


@dataclass(frozen=True)
class DownloadEach:
    """Files that each have a public address of their own."""

    addresses: Mapping[str, str]

    def __str__(self) -> str:
        return "download"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        _download(self.addresses[name], expected, target)


def _download(url: str, expected: str, target: Path) -> None:
    try:
        response = urllib.request.urlopen(url, timeout=_TIMEOUT_S)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAvailableError(f"{url}: {one_line(error)}") from error
    with response:
        length = response.headers.get("Content-Length", "")
        receive(response, expected, target, url, int(length) if length.isdigit() else None)


class DebianPackage:
    """Files of a Debian package, fetched with `apt-get download` and unpacked without installing it."""

    def __init__(self, package: str, folder: str) -> None:
        self.package, self.folder = package, folder
        self._unpacked: tempfile.TemporaryDirectory[str] | None = None

    def __str__(self) -> str:
        return f"Debian package {self.package}"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        if self._unpacked is None:
            try:
                self._unpacked = self._download()
            except (OSError, subprocess.SubprocessError) as error:
                raise NotAvailableError(one_line(error)) from error
        Folder(Path(self._unpacked.name) / "root" / self.folder).deliver(name, expected, target)

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
                cwd=f"{scratch.name}/download",
                capture_output=True,
                text=True,
                timeout=_APT_TIMEOUT_S,
                check=False,
            )
            if done.returncode != 0:
                raise NotAvailableError(
                    f"apt-get {' '.join(command)} failed: {' '.join(done.stderr.split()) or 'it did not say why'}"
                )
        archive = next(Path(scratch.name, "download").glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", str(archive), f"{scratch.name}/root"], check=True, capture_output=True)
        return scratch


@dataclass(frozen=True)
class PackageFile:
    """Files that an installed Python package carries."""

    package: str

    def __str__(self) -> str:
        return f"Python package {self.package}"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        try:
            stream = (resources.files(self.package) / f"{name}.gz").open("rb")
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise NotAvailableError(one_line(error)) from error
        with stream:
            receive(stream, expected, target, f"{self.package}/{name}.gz")


@dataclass(frozen=True)
class UserFolder:
    """A folder of the user's, in a known layout, whose files stay where they are.

    It is looked for in `data.search_paths`: a folder of its name inside one of them, or one of them itself. A dataset that
    has archives too (checksums) may lie there as these, or be downloaded; `fetch` unpacks them into the same layout.

    Attributes:
        name: of the folder.
        entries: files and folders that must be in it.
        origin: where a user gets them from.
    """

    name: str
    entries: Sequence[str]
    origin: str

    def __str__(self) -> str:
        return f"folder {self.name!r}"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        raise NotAvailableError(f"in no folder of data.search_paths (get it from {self.origin})")

    def located(self, raw: Path) -> Path:
        """Returns the absolute path of the folder that `fetch` found or unpacked, by what it wrote into `raw`.

        Raises UserError if something of it has gone.
        """
        origin = files.read_json(raw / "origin.json", "what fetch notes of a dataset")
        folder = Path(origin.get("folder", raw)).resolve()
        if missing := self.missing(folder):
            raise UserError(
                f"{folder} has lost {', '.join(missing)}; put it back, or delete {raw} and run the same command again"
            )
        return folder

    def missing(self, folder: Path) -> list[str]:
        """Returns the entries that a folder does not have."""
        return [entry for entry in self.entries if not (folder / entry).exists()]

    def places(self, search_paths: Sequence[Path]) -> list[Path]:
        """Returns where to look, folders of the right name first: other datasets' folders may have entries of the same names."""
        inside = [path / self.name for path in search_paths]
        return [*inside, *sorted(search_paths, key=lambda path: path.name != self.name)]
