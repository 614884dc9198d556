"""Puts a dataset's raw files into one folder, from the first place that has them all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.data.formats.archives import unpack
from creditflow.data.sources import Folder, NotAvailableError, Source, UserFolder, as_published


def fetch(
    dataset: str, checksums: Mapping[str, str], sources: Sequence[Source], search_paths: Sequence[Path], folder: Path
) -> str:
    """Puts all files of a dataset, verified, into `folder`, notes in `origin.json` where they are from, and returns that.

    Folders in `search_paths` come first, if they hold any of the files or are the `UserFolder` among the sources, of which
    only the path is noted; then `sources` in their order.

    Raises UserError if a file or folder in a search path is damaged or incomplete (it is the user's own, so nothing else is
    tried), or if no source has all files; the message names each source and its reason.
    """
    origin: dict[str, Any] = {"checksums": dict(checksums)}
    layout = next((source for source in sources if isinstance(source, UserFolder)), None)
    places = layout.places(search_paths) if layout else search_paths
    if layout and (found := next((place for place in places if not layout.missing(place)), None)):
        origin |= {"source": f"folder {found}", "folder": str(found.resolve())}
    elif checksums:
        origin["source"] = _from_search_path(dataset, checksums, places, folder) or _from_source(
            dataset, checksums, sources, layout, places, folder
        )
        if layout:
            _unpack_all(dataset, checksums, layout, folder)
    elif layout:
        raise UserError(_nowhere(dataset, checksums, layout, _incomplete(layout, places) or _not_there(places)))
    else:
        origin["source"] = "nothing to fetch"
    files.write_json(folder / "origin.json", origin)
    return str(origin["source"])


def _from_search_path(dataset: str, checksums: Mapping[str, str], places: Sequence[Path], folder: Path) -> str | None:
    local = next((Folder(path) for path in places if any(Folder(path).has(*item) for item in checksums.items())), None)
    if local is None:
        return None
    try:
        _copy(local, checksums, folder)
    except NotAvailableError as error:
        raise UserError(f"{dataset}: {error}; replace or remove it, then run the same command again") from error
    return str(local)


def _from_source(
    dataset: str,
    checksums: Mapping[str, str],
    sources: Sequence[Source],
    layout: UserFolder | None,
    places: Sequence[Path],
    folder: Path,
) -> str:
    if layout and (incomplete := _incomplete(layout, places)):
        raise UserError(_nowhere(dataset, checksums, layout, incomplete))
    reasons = _not_there(places)
    for source in sources:
        try:
            _copy(source, checksums, folder)
        except NotAvailableError as error:
            reasons.append(f"{source}: {error}")
        else:
            return str(source)
    raise UserError(_nowhere(dataset, checksums, layout, reasons))


def _copy(source: Source, checksums: Mapping[str, str], folder: Path) -> None:
    for name, expected in checksums.items():
        source.deliver(name, expected, folder / name)


def _unpack_all(dataset: str, checksums: Mapping[str, str], layout: UserFolder, folder: Path) -> None:
    for name in checksums:
        unpack(folder / name, folder, layout.entries)
        (folder / name).unlink()
    if missing := layout.missing(folder):
        raise UserError(
            f"{dataset}: {', '.join(checksums)} do not contain {', '.join(missing)}; get them from {layout.origin}"
        )


def _incomplete(layout: UserFolder, places: Sequence[Path]) -> list[str]:
    """Returns what is missing in folders that have some of the entries: their owner means them to be used."""
    return [
        f"{place} lacks {', '.join(missing)}"
        for place in places
        if len(missing := layout.missing(place)) < len(layout.entries)
    ]


def _not_there(places: Sequence[Path]) -> list[str]:
    return [f"{Folder(place)}: not there" for place in places]


def _nowhere(dataset: str, checksums: Mapping[str, str], layout: UserFolder | None, reasons: Sequence[str]) -> str:
    why = " | ".join(reasons) or "data.search_paths names no folder"
    names = ", ".join(checksums) + ("" if any(map(as_published, checksums.values())) else " (or the .gz files)")
    archives = f"put {names} into a folder and name it in data.search_paths of config/config.yaml"
    if layout is None:
        return f"{dataset}: no source has it ({why}); {archives}"
    return (
        f"{dataset}: no complete folder of it ({why}); it has {', '.join(layout.entries)} and comes from {layout.origin}; name it, or the"
        f" folder that has it as {layout.name!r}, in data.search_paths of config/config.yaml{f'; or {archives}' if checksums else ''}"
    )
