"""Archives, read without trust: members are asked for by name, and nothing is written outside a given folder."""

import errno
import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain

_CHUNK = 1 << 20
#: The most bytes of one member of a tar archive, which is held in memory (STL-10's have up to 221 MB), of headers and
#: wanted members together, and of the whole archive, decompressed (STL-10's has 3 GB); and its most members.
_MAX_MEMBER, _MAX_READ, _MAX_TAR, _MAX_MEMBERS = 512 << 20, 1 << 30, 16 << 30, 10_000
#: Of a zip archive: the most bytes of all that is unpacked, and how much more that may be than the archive has (COCO's
#: annotations have three times as much), beside a gigabyte; and its most members (COCO's largest has 82,783).
_MAX_UNPACKED, _MAX_GROWTH, _MAX_ZIP_MEMBERS = 64 << 30, 20, 1_000_000
#: How members of published zip archives are packed. Python knows other ways, which take memory without a limit.
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
#: What an operating system says of names that cannot be those of files; anything else, such as a full disk, is not the
#: archive's fault.
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Returns the content of files in a .tar.gz archive by their names, without unpacking it.

    Reading stops when all `names` are found; the rest of the archive is not decompressed.
    Raises UserError if the archive is damaged, if it would expand to more than a published one, or if one of the files
    is not in it or not a plain file.
    """
    contents: dict[str, bytes] = {}
    try:
        check_plain(path)
        with gzip.open(path) as content, tarfile.open(fileobj=_Limited(content), mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= _MAX_MEMBERS or member.offset_data + member.size > _MAX_TAR:
                    raise ValueError("it has more members, or larger ones, than a published archive")
                if member.name in names and member.name not in contents:
                    contents[member.name] = _member(archive, member, path)
                    if len(contents) == len(names):
                        break
    except UserError:
        raise
    except Exception as error:  # Python's readers fail in many ways on damaged archives
        raise _damaged(path, one_line(error)) from error
    if missing := sorted(set(names) - set(contents)):
        raise UserError(f"{path} does not contain {', '.join(missing)}; fetch it again")
    return contents


class _Limited(io.RawIOBase):
    """A decompressed archive, of which only so many bytes are given out; what is skipped does not count.

    tarfile itself takes the memory that the headers of an archive ask for.
    """

    def __init__(self, content: gzip.GzipFile) -> None:
        self._content, self._left = content, _MAX_READ

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > self._left:
            raise ValueError("it asks for more memory than a published archive needs")
        self._left -= size
        return self._content.read(size)

    def tell(self) -> int:
        return self._content.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > _MAX_TAR:
            raise ValueError("it would decompress to more than a published archive")
        return self._content.seek(offset)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> bytes:
    plausible = member.isreg() and not member.issparse() and member.size <= _MAX_MEMBER
    stream = archive.extractfile(member) if plausible else None
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
        check_plain(path)
        archive = zipfile.ZipFile(path)
    except Exception as error:  # Python's reader fails in many ways on damaged archives
        raise _damaged(path, one_line(error)) from error
    with archive:
        wanted = _wanted_members(archive, entries, path)
        for member in tqdm(wanted, path.name, unit="file", leave=False, disable=None):
            try:
                (folder / member.filename).parent.mkdir(parents=True, exist_ok=True)
                with (folder / member.filename).open("wb") as file:
                    file.writelines(_content(archive, member, path))
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise
                raise _damaged(path, f"{member.filename[:80]!r} is no name of a file") from error


def _wanted_members(archive: zipfile.ZipFile, entries: Collection[str], path: Path) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > _MAX_ZIP_MEMBERS:
        raise UserError(f"{path} has {len(members):,} members; get the archive from its publisher")
    for member in members:
        _refuse_outside(member, path)
    wanted = [member for member in members if not member.is_dir() and _belongs(member.filename, entries)]
    for member in wanted:
        if member.compress_type not in _PACKED:
            raise _damaged(path, f"{member.filename[:80]!r} is packed in a way that published archives do not have")
    limit = min(_MAX_UNPACKED, (1 << 30) + _MAX_GROWTH * path.stat().st_size)
    if sum(member.file_size for member in wanted) > limit:
        raise UserError(f"{path} would unpack to more than {limit >> 30} GiB; get the archive from its publisher")
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
    except Exception as error:  # Python's reader fails in many ways on damaged archives
        raise _damaged(path, f"{member.filename}: {one_line(error)}") from error


def _damaged(path: Path, why: str) -> UserError:
    why = " ".join(why.split())  # names of members may have line breaks
    return UserError(f"{path} is truncated or corrupt ({why}); fetch it again")
