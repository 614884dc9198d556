"""Archives, read without trust: members are asked for by name, and nothing is written outside a given folder."""

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from creditflow.core.errors import UserError, one_line

_CHUNK = 1 << 20
#: The most bytes of one member of a tar archive, which is held in memory, and of all that is unpacked from a zip
#: archive.
_MAX_MEMBER, _MAX_UNPACKED = 4 << 30, 64 << 30


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Returns the content of files in a .tar.gz archive by their names, without unpacking it.

    Reading stops when all `names` are found; the rest of the archive is not decompressed.
    Raises UserError if the archive is damaged, or if one of the files is not in it or not a plain file.
    """
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in names and member.name not in contents:
                    contents[member.name] = _member(archive, member, path)
                    if len(contents) == len(names):
                        break
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error) as error:
        raise _damaged(path, one_line(error)) from error
    if missing := sorted(set(names) - set(contents)):
        raise UserError(f"{path} does not contain {', '.join(missing)}; delete its folder and fetch again")
    return contents


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    stream = archive.extractfile(member) if member.isreg() and member.size <= _MAX_MEMBER else None
    if stream is None:
        raise UserError(
            f"{path}: {member.name} is not a plain file of a plausible size; get the archive from its publisher"
        )
    return stream.read()


def unpack(path: Path, folder: Path, entries: Collection[str]) -> None:
    """Unpacks a zip archive into a folder, but only what is one of `entries` (files or folders) or lies below one.

    Raises UserError if the archive is damaged, or has a member that points out of the folder.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(path, one_line(error)) from error
    with archive:
        wanted = _wanted_members(archive, entries, path)
        for member in tqdm(wanted, path.name, unit="file", leave=False, disable=None):
            target = folder / member.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                file.writelines(_content(archive, member, path))


def _wanted_members(archive: zipfile.ZipFile, entries: Collection[str], path: Path) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    for member in members:
        _refuse_outside(member, path)
    wanted = [member for member in members if not member.is_dir() and _belongs(member.filename, entries)]
    if sum(member.file_size for member in wanted) > _MAX_UNPACKED:
        raise UserError(
            f"{path} would unpack to more than {_MAX_UNPACKED >> 30} GiB; get the archive from its publisher"
        )
    return wanted


def _refuse_outside(member: zipfile.ZipInfo, path: Path) -> None:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or stat.S_ISLNK(member.external_attr >> 16):
        raise UserError(
            f"{path} has a member {member.filename!r}, which points out of its folder;"
            " get the archive from its publisher"
        )


def _belongs(name: str, entries: Collection[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}/") for entry in entries)


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> Iterator[bytes]:
    try:
        with archive.open(member) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, zlib.error) as error:
        raise _damaged(path, f"{member.filename}: {one_line(error)}") from error


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is truncated or corrupt ({why}); delete its folder and fetch again")
