"""Plugins that other distributions bring: they declare an entry point, and nothing of theirs is imported to list them.

The group of a kind is `creditflow.<kind>s`, such as `creditflow.rules`. The name is the id of the plugin, and the
value is its module:

    [project.entry-points."creditflow.attacks"]
    my_attack = "my_package.my_attack"

The module is what a file in the folder of that kind would be. Its settings, if it has any, are the class `Settings` of
`my_package/settings/my_attack.py`.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from creditflow.core.errors import UserError
from creditflow.core.files import visible_files

#: How the names of our groups of entry points begin.
_PREFIX = "creditflow."


@dataclass(frozen=True)
class OutsidePlugin:
    """A plugin of another distribution.

    Attributes:
        name: its id.
        module: its module, such as `my_package.my_attack`.
        distribution: name of the distribution that declares it.
        file: its file.
        root: the folder of its outermost package, or its file if it lies in none.
    """

    name: str
    module: str
    distribution: str
    file: Path
    root: Path

    @property
    def settings_module(self) -> str | None:
        """The module of its settings; None if it has none."""
        package, _, stem = self.module.rpartition(".")
        there = self.file.with_name("settings").joinpath(f"{stem}.py").is_file()
        return f"{package}.settings.{stem}" if package and there else None

    def sources(self) -> dict[str, Path]:
        """Returns the Python files that it may run: those of its outermost package, by their paths in it."""
        paths = [self.root] if self.root.is_file() else visible_files(self.root, "**/*.py")
        return {path.relative_to(self.root.parent).as_posix(): path for path in paths}


def outside_names(kind: str) -> list[str]:
    """Returns the sorted ids of plugins of a kind that other distributions bring."""
    return sorted(_entries(tuple(sys.path)).get(group(kind), ()))


def outside_plugin(kind: str, name: str) -> OutsidePlugin | None:
    """Returns the plugin of this kind and id that another distribution brings; None if there is none.

    Raises UserError if two distributions bring it, if the entry point is not the name of a module, or if there is no
    such module.
    """
    return _plugin(kind, name, tuple(sys.path))


def group(kind: str) -> str:
    """Returns the group of entry points of a kind of plugins, such as `creditflow.rules`."""
    return f"{_PREFIX}{kind}s"


@cache  # a workflow asks for each job; where Python looks for packages may change
def _entries(places: tuple[str, ...]) -> Mapping[str, Mapping[str, list[EntryPoint]]]:
    """Returns our entry points by group and name. Of two copies of a distribution, Python takes the first.

    All groups are read at once, as each look at the distributions opens a file of each of them.
    """
    declared: dict[str, dict[str, list[EntryPoint]]] = defaultdict(lambda: defaultdict(list))
    distributions = entry_points()
    for name in distributions.groups:
        for entry in distributions.select(group=name) if name.startswith(_PREFIX) else ():
            declared[name][entry.name].append(entry)
    return declared


@cache
def _plugin(kind: str, name: str, places: tuple[str, ...]) -> OutsidePlugin | None:
    entries = _entries(places).get(group(kind), {}).get(name, [])
    if not entries:
        return None
    distributions = [entry.dist.name if entry.dist else "?" for entry in entries]
    what = f"{kind.replace('_', ' ')} {name!r} of the distribution {distributions[0]}"
    if len(entries) > 1:
        raise UserError(f"{kind.replace('_', ' ')} {name!r} comes from {' and '.join(distributions)}; uninstall one")
    module = entries[0].value.strip()
    if not all(part.isidentifier() for part in module.split(".")) or not name.isidentifier():
        raise UserError(f"{what}: its entry point must be an identifier = a module, not {name} = {module}")
    top = find_spec(module.partition(".")[0])
    spec = _spec(module, top)
    if top is None or spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UserError(f"{what}: there is no module {module}; install the distribution again")
    in_package = top.origin is not None and top.submodule_search_locations
    root = Path(top.origin or spec.origin).parent if in_package else Path(spec.origin)
    return OutsidePlugin(name, module, distributions[0], Path(spec.origin), root)


def _spec(module: str, top: ModuleSpec | None) -> ModuleSpec | None:
    """Finds a module below an outermost package without importing the packages above it."""
    spec, parts = top, module.split(".")
    for length in range(2, len(parts) + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(".".join(parts[:length]), list(spec.submodule_search_locations))
    return spec
