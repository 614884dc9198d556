"""Extension points: a rule, dataset, backbone, attack, table or figure is one file, and its file name is its id.

Names are read from the folder, without importing anything, so the workflow can check a configuration in
milliseconds. Loading imports the one file that is asked for. Other distributions bring plugins by entry points; see
`core/entry_points.py`.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from creditflow.core.entry_points import OutsidePlugin, outside_names, outside_plugin
from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.core.files import visible_files
from creditflow.core.modules import imported, not_python
from creditflow.core.settings import NoSettings, SettingsModel

_PACKAGE = Path(__file__).parents[1]

#: What can be extended, and the folder (below the package) where its files live.
ROOMS = {
    "rule": "feedback/rules",
    "update_rule": "populations/rules",
    "dataset": "data/datasets",
    "backbone": "models/backbones",
    "attack": "attacks/methods",
    "hash_attack": "attacks/hashing",
    "table": "reporting/tables",
    "figure": "reporting/figures",
}


#: The variable or function that the file of a plugin must have.
_VARIABLES = {
    "rule": "RULE",
    "update_rule": "RULE",
    "dataset": "DATASET",
    "backbone": "build",
    "attack": "ATTACK",
    "hash_attack": "ATTACK",
    "table": "TABLE",
    "figure": "FIGURE",
}


def names(kind: str) -> list[str]:
    """Returns the sorted ids of all plugins of one kind (a key of `ROOMS`)."""
    return sorted({*built_in_names(kind), *outside_names(kind)})


def built_in_names(kind: str) -> list[str]:
    """Returns the sorted ids of the plugins of one kind that creditflow itself has."""
    folder = _PACKAGE / ROOMS[kind]
    return list(_names(folder, folder.stat().st_mtime_ns))


def outside(kind: str, name: str) -> OutsidePlugin | None:
    """Returns the plugin if another distribution brings it; None if creditflow has it, or nobody.

    Raises UserError if creditflow has one of this name, too, or if the entry point is wrong.
    """
    plugin = outside_plugin(kind, name)
    if plugin is not None and name in built_in_names(kind):
        what = kind.replace("_", " ")
        raise UserError(
            f"the distribution {plugin.distribution} brings a {what} {name!r}, but creditflow has one of this name;"
            " rename its entry point, or uninstall it"
        )
    return plugin


@cache
def _names(folder: Path, changed: int) -> tuple[str, ...]:
    stems = [path.stem for path in visible_files(folder, "*.py")]
    return tuple(stem for stem in stems if stem.isidentifier() and not stem.startswith("_"))


def outside_sources() -> dict[str, Path]:
    """Returns the files of all plugins that other distributions bring, by the distribution's name and their path."""
    brought = [outside(kind, name) for kind in ROOMS for name in outside_names(kind)]
    return {
        f"{plugin.distribution}:{place}": file
        for plugin in brought
        if plugin
        for place, file in plugin.sources().items()
    }


def check(kind: str, name: str) -> None:
    """Raises UserError, with the closest match, unless `name` is a plugin of this kind."""
    if name in built_in_names(kind):  # a workflow asks many times for each job, and nearly all plugins are ours
        return
    known = names(kind)
    if name not in known:
        raise UserError(f"unknown {kind.replace('_', ' ')} {name!r}{suggestion(name, known)}")


def load(kind: str, name: str) -> ModuleType:
    """Imports the plugin `name` of this kind.

    Raises UserError if there is none, if its file is broken, or if that of another distribution is no such plugin.
    """
    check(kind, name)
    plugin = outside(kind, name)
    if plugin is None:
        return imported(f"creditflow.{ROOMS[kind].replace('/', '.')}.{name}")
    what = f"{kind.replace('_', ' ')} {name!r} of the distribution {plugin.distribution}"
    try:
        module = import_module(plugin.module)
    except Exception as error:  # it is somebody else's code
        raise UserError(
            f"{what} cannot be imported ({type(error).__name__}: {one_line(error)}); mend it, or uninstall it"
        ) from error
    if not hasattr(module, _VARIABLES[kind]):
        raise UserError(f"{what}: {plugin.file} must define {_VARIABLES[kind]}, as CONTRIBUTING.md shows")
    return module


def settings_class(kind: str, name: str) -> type[SettingsModel]:
    """Returns the class of a plugin's settings: `Settings` in the file `settings/<name>.py` beside the plugin.

    A plugin without such a file has nothing to set. These files import no torch, so that experiments are checked
    quickly. Raises UserError if there is no such plugin, or if the file is broken.
    """
    check(kind, name)
    plugin = outside(kind, name)
    if plugin is not None:
        place = plugin.settings_module
    else:
        there = path(kind, name).with_name("settings").joinpath(f"{name}.py").exists()
        place = f"creditflow.{ROOMS[kind].replace('/', '.')}.settings.{name}" if there else None
    if place is None:
        return NoSettings
    found: type[SettingsModel] = imported(place).Settings
    return found


def docstring(kind: str, name: str) -> str:
    """Returns a plugin's docstring, read without importing it."""
    return ast.get_docstring(_parsed(kind, name)) or name


def declared(kind: str, name: str, argument: str, default: Any = None) -> Any:
    """Returns a literal keyword argument of the call that makes a plugin's variable: a constant, or a tuple of them.

    For example, `uses_gradient` of `ATTACK = Attack(..., uses_gradient=True)`, read without importing the file.
    Raises UserError if the file declares no such literal and there is no default.
    """
    for statement in _parsed(kind, name).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            for keyword in statement.value.keywords:
                if keyword.arg == argument and isinstance(keyword.value, ast.Constant | ast.Tuple):
                    return ast.literal_eval(keyword.value)
    if default is not None:
        return default
    raise UserError(f"{kind} {name!r}: {path(kind, name)} must declare {argument}= with a literal value")


def assigns(kind: str, name: str, variable: str) -> bool:
    """Returns whether a plugin's file gives a value to a variable; read without importing the file."""
    targets: list[ast.expr] = []
    for statement in _parsed(kind, name).body:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets.append(statement.target)
    return any(isinstance(target, ast.Name) and target.id == variable for target in targets)


def path(kind: str, name: str) -> Path:
    """Returns the file of a plugin. Raises UserError as `outside` does."""
    plugin = outside(kind, name)
    return plugin.file if plugin else _PACKAGE / ROOMS[kind] / f"{name}.py"


def _parsed(kind: str, name: str) -> ast.Module:
    """Returns the syntax of a plugin's file. Raises UserError if it is not valid Python."""
    check(kind, name)
    file = path(kind, name)
    return _parsed_file(file, file.stat().st_mtime_ns)


@cache  # a workflow asks for each job
def _parsed_file(file: Path, changed: int) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8-sig"))
    except (SyntaxError, ValueError, RecursionError) as error:  # a file that somebody is editing or merging
        raise UserError(not_python(error, file)) from error
