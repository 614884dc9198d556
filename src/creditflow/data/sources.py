"""Where raw files come from: a folder of the user's, a download, a Debian package, a file inside a Python package.

A source writes one named file, verified, or raises NotAvailableError: no file is used before its checksum is known to
be right. Some datasets are published with an MD5, which finds damage but not malice. So their files are read with care
(`formats/archives.py`, `formats/cifar.py`, `formats/mat.py`).
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Protocol

from tqdm import tqdm

from creditflow.core import files
from creditflow.core.errors import UserError, one_line
from creditflow.data.downloads import NotAvailableError, length_of, open_address, pieces
from creditflow.data.formats.gz import ExpansionError, decompressed

#: Seconds that apt-get, and dpkg-deb, may take in all.
_APT_TIMEOUT_S = 600
#: The most bytes of content of a file whose SHA-256 is known (the largest has 47 MB), and of one that is kept as
#: published (the largest has 13 GB).
_MAX_CONTENT, _MAX_PUBLISHED = 256 << 20, 64 << 30


class Source(Protocol):
    """Something that may have a dataset's files."""

    def __str__(self) -> str: ...

    def deliver(self, name: str, expected: str, target: Path) -> None:
        """Writes the file of this name to `target`; `expected` is its checksum, written as in `Dataset.checksums`.

        Raises NotAvailableError if the source does not have it, and then leaves nothing at `target`.
        """
        ...


def as_published(expected: str) -> bool:
    """Says whether a file with this checksum is kept as it is published, compressed or not."""
    return expected.startswith("md5:")


def expanded(path: Path) -> Path:
    """Returns a path as people write it, such as `~/data` or `$DATA/images`, with the folders that are meant."""
    return Path(os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111 - pathlib's raises for unknown users


def receive(stream: IO[bytes], expected: str, target: Path, origin: str, size: int | None = None) -> None:
    """Writes a stream to `target`; `size` is its number of bytes, if that is known.

    Raises NotAvailableError as `Source.deliver` does.
    """
    try:
        if as_published(expected):
            _keep_published(stream, expected, target, origin, size)
        else:
            _keep_content(stream, expected, target, origin)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _keep_content(stream: IO[bytes], expected: str, target: Path, origin: str) -> None:
    """Writes the content, decompressed if it is gzip, piece by piece."""
    sha256 = hashlib.sha256()
    try:
        with target.open("wb") as file:
            for piece in decompressed(pieces(stream.read, _MAX_CONTENT, origin), _MAX_CONTENT):
                sha256.update(piece)
                file.write(piece)
    except ExpansionError as error:
        raise NotAvailableError(f"{origin} is truncated or corrupt ({one_line(error)})") from error
    if sha256.hexdigest() != expected:
        raise NotAvailableError(f"{origin} is truncated or corrupt (its SHA-256 is not {expected[:12]}...)")


def _keep_published(stream: IO[bytes], expected: str, target: Path, origin: str, size: int | None) -> None:
    md5 = hashlib.md5(usedforsecurity=False)
    with (
        target.open("wb") as file,
        tqdm(desc=target.name, total=size, unit="B", unit_scale=True, leave=False, disable=None) as bar,
    ):
        for piece in pieces(stream.read, _MAX_PUBLISHED, origin):
            md5.update(piece)
            file.write(piece)
            bar.update(len(piece))
    if md5.hexdigest() != expected.removeprefix("md5:"):
        raise NotAvailableError(f"{origin} is truncated or corrupt (its MD5 is not {expected[4:16]}...)")


@dataclass(frozen=True)
class Folder:
    """Files in a local folder, plain or as .gz. A file that is kept as published has just its own name."""

    path: Path

    def __str__(self) -> str:
        return f"folder {self.path}"

    def has_any(self, checksums: Mapping[str, str]) -> bool:
        """Says whether the folder holds any of the files."""
        return any(self._find(name, expected) for name, expected in checksums.items())

    def deliver(self, name: str, expected: str, target: Path) -> None:
        path = self._find(name, expected)
        if path is None:
            raise NotAvailableError(f"{self.path} has no {name}{'' if as_published(expected) else f' or {name}.gz'}")
        with path.open("rb") as stream:
            receive(stream, expected, target, str(path), path.stat().st_size)

    def _find(self, name: str, expected: str) -> Path | None:
        names = (name,) if as_published(expected) else (name, f"{name}.gz")
        return next((self.path / name for name in names if (self.path / name).is_file()), None)


@dataclass(frozen=True)
class Download:
    """Files below public addresses, which are tried in turn.

    `addresses` is a function, so that a list of mirrors is loaded only when it is needed. Files that are not kept as
    published are downloaded as .gz.
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
    """Files of which each has a public address of its own."""

    addresses: Mapping[str, str]

    def __str__(self) -> str:
        return "download"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        _download(self.addresses[name], expected, target)


def _download(url: str, expected: str, target: Path) -> None:
    with open_address(url) as response:
        receive(response, expected, target, url, length_of(response))


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
        for command in (["update"], ["download", self.package]):
            _run_apt_get(command, Path(scratch.name))
        archive = next(Path(scratch.name, "download").glob("*.deb"), None)
        if archive is None:
            raise NotAvailableError(f"apt-get download {self.package} wrote no package")
        subprocess.run(
            ["dpkg-deb", "-x", str(archive), f"{scratch.name}/root"],
            check=True,
            capture_output=True,
            timeout=_APT_TIMEOUT_S,
        )
        return scratch


def _run_apt_get(command: Sequence[str], scratch: Path) -> None:
    # The package lists are in `scratch`, too: the system's may be missing or old, and to renew them one must be root
    # and, in a container, have a writable image.
    options = [f"-oDir::State::Lists={scratch}/lists", f"-oDir::Cache={scratch}/cache"]
    done = subprocess.run(
        ["apt-get", "-oAPT::Sandbox::User=", *options, *command],
        cwd=scratch / "download",
        capture_output=True,
        encoding="utf-8",
        timeout=_APT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or "it did not say why"
        raise NotAvailableError(f"apt-get {' '.join(command)} failed: {reason}")


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

    It is looked for in `data.search_paths`: it is one of these folders, or has its name inside one of them. A dataset
    that has archives, too (and so checksums), may lie there as archives, or be downloaded; `fetch` unpacks them into
    the same layout.

    Attributes:
        name: name of the folder.
        entries: files and folders that must be in it.
        origin: where a user can get them.
    """

    name: str
    entries: Sequence[str]
    origin: str

    def __str__(self) -> str:
        return f"folder {self.name!r}"

    def deliver(self, name: str, expected: str, target: Path) -> None:
        raise NotAvailableError(f"in no folder of data.search_paths (get it from {self.origin})")

    def located(self, raw: Path) -> Path:
        """Returns the absolute path of the folder that `fetch` found or unpacked, according to its note in the folder
        `raw`.

        Raises UserError if any of the entries is no longer there.
        """
        origin = files.read_json(raw / "origin.json", "what fetch notes of a dataset", sealed=False)
        if not isinstance(origin, dict) or not isinstance(place := origin.get("folder", str(raw)), str):
            raise UserError(f"{raw}/origin.json is not what fetch notes of a dataset; fetch the dataset again")
        try:
            folder = Path(place).resolve()
        except ValueError as error:  # a name that no file can have
            raise UserError(
                f"{raw}/origin.json names no folder ({one_line(error)}); fetch the dataset again"
            ) from error
        if missing := self.missing(folder):
            raise UserError(
                f"{folder} has lost {', '.join(missing)};"
                f" put it back, or move {raw} away and run the same command again"
            )
        return folder

    def missing(self, folder: Path) -> list[str]:
        """Returns the entries that a folder lacks."""
        return [entry for entry in self.entries if not (folder / entry).exists()]

    def places(self, search_paths: Sequence[Path]) -> list[Path]:
        """Returns where to look, folders of the right name first: another dataset's may have the same entries."""
        inside = [path / self.name for path in search_paths]
        return [*inside, *sorted(search_paths, key=lambda path: path.name != self.name)]
