"""Puts a dataset's raw files into one folder, from the first place that has all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.core.settings import parse, plain
from creditflow.data.downloads import NotAvailableError
from creditflow.data.formats.archives import unpack
from creditflow.data.image_folders import look_at
from creditflow.data.settings import SplitSettings
from creditflow.data.sources import Folder, Source, UserFolder, as_published, expanded

#: The number of files that are named.
_NAMED = 3


def fetch(
    dataset: str, checksums: Mapping[str, str], sources: Sequence[Source], search_paths: Sequence[Path], folder: Path
) -> str:
    """Puts all files of a dataset, verified, into a folder, and notes in `origin.json` there where they come from.

    Folders in `search_paths` come first, if they hold any of the files. If one of the sources is a `UserFolder` and a
    search path has it, only its path is noted. The sources follow in their order.

    Args:
        dataset: the dataset's id, for error messages.
        checksums, sources: see `Dataset`.
        search_paths: folders of the user's; `~` and variables such as `$DATA` are replaced.
        folder: where the files are written.

    Returns the source that had the files. Raises UserError if a file or folder in a search path is damaged or
    incomplete (as it is the user's own, nothing else is tried), or if no source has all files; the message then names
    each source and why it does not have them.
    """
    search_paths = [expanded(path) for path in search_paths]
    layout = next((source for source in sources if isinstance(source, UserFolder)), None)
    places = layout.places(search_paths) if layout else search_paths
    request = _Request(dataset, checksums, sources, places, layout)
    origin: dict[str, Any] = {"checksums": dict(checksums)}
    if complete := request.complete_folder():
        origin |= {"source": f"folder {complete}", "folder": str(complete.resolve())}
    else:
        origin["source"] = request.fetch_files(folder)
    files.write_json(folder / "origin.json", origin)
    return str(origin["source"])


def note_folder(place: Path, split: Mapping[str, Any] | None, folder: Path) -> str:
    """Notes in `origin.json` in a folder where images lie that the user names, how they are split, and their state.

    Args:
        place: the folder of images.
        split: the keys of `SplitSettings`; None if the folder has `train` and `test`.
        folder: where the note is written.

    Returns the place and what is there, in words. Raises UserError as `parse` and `look_at` do.
    """
    settings = None if split is None else parse(SplitSettings, split, "--split")
    content = look_at(place.resolve(), settings)
    origin = {"checksums": {}, "source": f"folder {place}", "folder": str(content.folder), "state": content.state}
    files.write_json(folder / "origin.json", origin | {"split": None if settings is None else plain(settings)})
    counts = [f"{sum(map(len, images.values()))} {part} images" for part, images in content.names.items()]
    words = f"folder {place}: {len(content.classes)} classes, {', '.join(counts)}"
    named = ", ".join([*content.left_out[:_NAMED], *(["..."] if len(content.left_out) > _NAMED else [])])
    return f"{words}; {len(content.left_out)} files have no ending of an image ({named})" if content.left_out else words


@dataclass(frozen=True)
class _Request:
    """What is fetched, and where it is looked for.

    Attributes:
        dataset, checksums, sources: as in `fetch`.
        places: folders of the user's that may hold the files, or be the dataset's folder.
        layout: the dataset's folder, for datasets that may lie in one.
    """

    dataset: str
    checksums: Mapping[str, str]
    sources: Sequence[Source]
    places: Sequence[Path]
    layout: UserFolder | None

    def complete_folder(self) -> Path | None:
        """Returns the first place that is the dataset's folder and lacks nothing."""
        if self.layout is None:
            return None
        return next((place for place in self.places if not self.layout.missing(place)), None)

    def fetch_files(self, folder: Path) -> str:
        """Puts all files into a folder, unpacked if the dataset has a layout. Returns the source that had them."""
        if not self.checksums:
            if self.layout:
                raise self._nowhere(self._incomplete() or self._not_there())
            return "nothing to fetch"
        source = self._from_search_path(folder) or self._from_source(folder)
        if self.layout:
            self._unpack_all(self.layout, folder)
        return source

    def _from_search_path(self, folder: Path) -> str | None:
        """Takes the files from the first place that has any of them."""
        local = next((place for place in map(Folder, self.places) if place.has_any(self.checksums)), None)
        if local is None:
            return None
        try:
            self._copy(local, folder)
        except NotAvailableError as error:
            raise UserError(
                f"{self.dataset}: {error}; replace it or move it away, then run the same command again"
            ) from error
        return str(local)

    def _from_source(self, folder: Path) -> str:
        if incomplete := self._incomplete():
            raise self._nowhere(incomplete)
        reasons = self._not_there()
        for source in self.sources:
            try:
                self._copy(source, folder)
            except NotAvailableError as error:
                reasons.append(f"{source}: {error}")
            else:
                return str(source)
        raise self._nowhere(reasons)

    def _copy(self, source: Source, folder: Path) -> None:
        for name, expected in self.checksums.items():
            source.deliver(name, expected, folder / name)

    def _unpack_all(self, layout: UserFolder, folder: Path) -> None:
        for name in self.checksums:
            unpack(folder / name, folder, layout.entries)
            (folder / name).unlink()
        if missing := layout.missing(folder):
            raise UserError(
                f"{self.dataset}: {', '.join(self.checksums)} do not contain {', '.join(missing)};"
                f" get them from {layout.origin}"
            )

    def _incomplete(self) -> list[str]:
        """Returns what is missing in folders that have some of the entries: their owner means them to be used."""
        if self.layout is None:
            return []
        return [
            f"{place} lacks {', '.join(missing)}"
            for place in self.places
            if len(missing := self.layout.missing(place)) < len(self.layout.entries)
        ]

    def _not_there(self) -> list[str]:
        names = [f"{name}{'' if as_published(expected) else ' (or .gz)'}" for name, expected in self.checksums.items()]
        wanted = ", ".join(dict.fromkeys([*(self.layout.entries if self.layout else ()), *names]))
        reasons = {True: f"exists, but has none of {wanted}", False: "not there"}
        return [f"{Folder(place)}: {reasons[place.is_dir()]}" for place in self.places]

    def _nowhere(self, reasons: Sequence[str]) -> UserError:
        why = " | ".join(reasons) or "data.search_paths names no folder"
        names = ", ".join(self.checksums)
        if not any(map(as_published, self.checksums.values())):
            names += " (or the .gz files)"
        archives = f"put {names} into a folder and name it in data.search_paths of config/config.yaml"
        if self.layout is None:
            return UserError(f"{self.dataset}: no source has it ({why}); {archives}")
        others = f"; or {archives}" if self.checksums else ""
        return UserError(
            f"{self.dataset}: no complete folder of it ({why}); it has {', '.join(self.layout.entries)} and comes from"
            f" {self.layout.origin}; name it, or the folder that has it as {self.layout.name!r},"
            f" in data.search_paths of config/config.yaml{others}"
        )
