"""What a stage's result depends on: the files of the library that its script imports, directly or through others.

The imports are read from the text, without running anything. Plugins are loaded by name, so no script imports them; a caller names the
plugins that a job uses. A rule of the workflow holds the hash of these files among its `params`, so that a changed file makes again what
depends on it, and nothing else.
"""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from creditflow.core import plugins
from creditflow.core.files import fingerprint

_SOURCE = Path(__file__).resolve().parents[2]

#: Plumbing: files and folders that every stage shares and that decide no number. Records hold a hash of all sources anyway.
PLUMBING = (
    "creditflow/__init__.py",
    "creditflow/core",
    "creditflow/compute/container.py",
    "creditflow/compute/gpus.py",
    "creditflow/compute/provenance.py",
    "creditflow/stages/command_line.py",
)


def library_hash(stage: str, used: Sequence[tuple[str, str]], leaving_out: tuple[str, ...] = ()) -> str:
    """Returns a short hash of the library's files that a stage's result depends on.

    Args:
        stage: name of a script in `src/`, without suffix.
        used: the plugins that the job uses, as (kind, name), with kinds from `plugins.ROOMS`.
        leaving_out: folders below `src/` that this job does not use, though its script could, such as `creditflow/retrieval`.
    """
    return _hash_of(stage, tuple(sorted(used)), leaving_out)


def library_files(stage: str, used: Sequence[tuple[str, str]], leaving_out: tuple[str, ...] = ()) -> list[Path]:
    """Returns those files, sorted; arguments as for `library_hash`."""
    roots = [_SOURCE / f"{stage}.py", *(plugins.path(kind, name) for kind, name in used)]
    without = tuple(_SOURCE / part for part in (*PLUMBING, *leaving_out))
    found: set[Path] = set()
    waiting = [path for root in roots for path in [root, *_imported(root, root.stat().st_mtime_ns)]]
    while waiting:
        path = waiting.pop()
        if path in found or any(path.is_relative_to(part) for part in without):
            continue
        found.add(path)
        waiting += _imported(path, path.stat().st_mtime_ns)
    return sorted(found - {roots[0]})


@cache
def _hash_of(stage: str, used: tuple[tuple[str, str], ...], leaving_out: tuple[str, ...]) -> str:
    files = library_files(stage, used, leaving_out)
    return fingerprint({str(path.relative_to(_SOURCE)): path.read_text(encoding="utf-8") for path in files})


@cache
def _imported(file: Path, changed: int) -> tuple[Path, ...]:
    """Returns the library's files that a file imports itself, imports inside functions included."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [path for name in node.names for path in _files_of(f"{node.module}.{name.name}")]
        elif isinstance(node, ast.Import):
            found += [path for name in node.names for path in _files_of(name.name)]
    return tuple(dict.fromkeys(found))


def _files_of(module: str) -> Iterator[Path]:
    """Yields what `import module` runs: the packages above it and the module itself; of a name in a module, that module."""
    parts = module.split(".")
    if parts[0] != "creditflow":
        return
    for length in range(1, len(parts) + 1):
        place = _SOURCE.joinpath(*parts[:length])
        yield from (path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file())
