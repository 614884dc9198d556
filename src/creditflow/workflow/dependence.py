"""What a stage's result depends on: the files of the library that its script imports, directly or through others.

The imports are read from the text, without running anything. Plugins are loaded by name, so no script imports them; a
caller names the plugins that a job uses. Of a plugin of another distribution, all files of its outermost package count.
A rule of the workflow holds the hash of these files among its `params`. So a changed file makes again what depends on
it, and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cache
from pathlib import Path

from creditflow.core import plugins
from creditflow.core.entry_points import OutsidePlugin, outside_names
from creditflow.core.files import fingerprint, sha256, visible_files

#: Plumbing: files and folders that every stage shares and that decide no number. Records hold a hash of all sources
#: anyway.
PLUMBING = (
    "creditflow/__init__.py",
    "creditflow/core/",
    "creditflow/compute/container.py",
    "creditflow/compute/gpus.py",
    "creditflow/compute/provenance.py",
    "creditflow/stages/command_line.py",
    "creditflow/workflow/",  # stages ask it only where a file belongs
)

#: Files that read what plugins declare, without importing them, and the kinds of these plugins.
READERS = {"creditflow/reporting/rules.py": ("rule", "update_rule")}

#: `from creditflow.x import a, b` and `import creditflow.x`, also over several lines and inside functions. A search by
#: this pattern is forty times as fast as a parser, and every start of Snakemake waits for it. What it finds in a text,
#: such as a docstring's example, does no harm.
_FROM = re.compile(r"^[ \t]*from[ \t]+(creditflow[\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n]*)", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+(creditflow[\w.]*)", re.MULTILINE)
_COMMENT = re.compile(r"#[^\n]*")

_SOURCE = Path(__file__).resolve().parents[2]


def library_hash(stage: str, used: Sequence[tuple[str, str]], leaving_out: tuple[str, ...] = ()) -> str:
    """Returns a short hash of the library's files that a stage's result depends on.

    Args:
        stage: name of a script in `src/`, without suffix.
        used: the plugins that the job uses, as (kind, name), with kinds from `plugins.ROOMS`.
        leaving_out: folders below `src/` that this job does not use, though its script could, such as
        `creditflow/retrieval/`.
    """
    return _hash_of(stage, tuple(sorted(used)), leaving_out)


@cache
def _hash_of(stage: str, used: tuple[tuple[str, str], ...], leaving_out: tuple[str, ...]) -> str:
    return _this_library().hash(stage, used, leaving_out)


@cache
def _this_library() -> "Library":
    return Library(_SOURCE)


class Library:
    """The sources in a folder that holds the stages' scripts and `creditflow/`. Each file is read once."""

    def __init__(self, folder: Path) -> None:
        self.files = {str(path.relative_to(folder)) for path in visible_files(folder, "creditflow/**/*.py")}
        self._folder = folder
        self._texts: dict[str, str] = {}
        self._imports: dict[str, list[str]] = {}

    def with_text(self, path: str, text: str) -> "Library":
        """Returns this library as it would be if one of its files had another text."""
        other = copy(self)
        other._texts = self._texts | {path: text}
        other._imports = {name: imports for name, imports in self._imports.items() if name != path}
        return other

    def hash(self, stage: str, used: Sequence[tuple[str, str]], leaving_out: tuple[str, ...] = ()) -> str:
        """Returns a short hash of the files that `depends_on` returns."""
        paths = self.depends_on(stage, used, leaving_out)
        return fingerprint({path: _text_hash(self.text(path)) for path in paths})

    def depends_on(self, stage: str, used: Sequence[tuple[str, str]], leaving_out: tuple[str, ...] = ()) -> list[str]:
        """Returns the files below the folder that a stage's result depends on, sorted; see `library_hash`."""
        without = (*PLUMBING, *leaving_out)
        closed: set[str] = set()
        waiting = [*self._imported(f"{stage}.py"), *(path for kind, name in used for path in self._plugin(kind, name))]
        while waiting:
            path = waiting.pop()
            if path not in closed and not path.startswith(without):
                closed.add(path)
                waiting += self._imported(path)
        return sorted(closed | {path for reader in closed for path in self._read_by(reader)})

    def text(self, path: str) -> str:
        """Returns the text of a file."""
        if path not in self._texts:
            self._texts[path] = (self._folder / path).read_text(encoding="utf-8", errors="surrogateescape")
        return self._texts[path]

    def _plugin(self, kind: str, name: str) -> Iterator[str]:
        """Yields the file of a plugin, that of its settings, and the packages that they lie in."""
        plugin = plugins.outside(kind, name)
        if plugin is not None:
            yield from self._outside(plugin)
            return
        room = f"creditflow.{plugins.ROOMS[kind].replace('/', '.')}"
        yield from self._run_by(f"{room}.{name}")
        yield from self._run_by(f"{room}.settings.{name}")

    def _outside(self, plugin: OutsidePlugin) -> Iterator[str]:
        """Yields the files of a plugin of another distribution, by names that begin with that of the distribution."""
        for path, file in plugin.sources().items():
            name = f"{plugin.distribution}:{path}"
            self._texts[name] = file.read_text(encoding="utf-8", errors="surrogateescape")
            yield name

    def _read_by(self, reader: str) -> Iterator[str]:
        for kind in READERS.get(reader, ()):
            room = f"creditflow/{plugins.ROOMS[kind]}"
            yield from (path for path in self.files if path.rpartition("/")[0] == room)
            yield from (path for name in outside_names(kind) for path in self._plugin(kind, name))

    def _imported(self, path: str) -> list[str]:
        if path not in self._imports:
            self._imports[path] = [file for module in _modules(self.text(path)) for file in self._run_by(module)]
        return self._imports[path]

    def _run_by(self, module: str) -> Iterator[str]:
        """Yields the files that `import module` runs: the packages above it, and the module or the name's module."""
        parts = module.split(".")
        for length in range(1, len(parts) + 1):
            place = "/".join(parts[:length])
            yield from (path for path in (f"{place}/__init__.py", f"{place}.py") if path in self.files)


def _modules(text: str) -> tuple[str, ...]:
    """Returns what a file's text imports of the library: modules, and names in modules with the module before them."""
    modules = dict.fromkeys(_IMPORT.findall(text))
    for module, names in _FROM.findall(text):
        for name in _COMMENT.sub("", names).strip("()\n ").split(","):
            modules[f"{module}.{name.split()[0]}" if name.strip() else module] = None
    return tuple(modules)


@cache
def _text_hash(text: str) -> str:
    return sha256(text.encode(errors="surrogateescape"))
