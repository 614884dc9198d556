"""Importing a file that somebody may be writing: what is wrong with it is told in one line, with file and line."""

import traceback
from importlib import import_module
from pathlib import Path
from types import ModuleType

from creditflow.core.errors import UserError, one_line

_PACKAGE = Path(__file__).parents[1]


def imported(module: str) -> ModuleType:
    """Imports a plugin, or its settings, by the module's full name.

    Raises UserError, which names file and line, if the file or one that it imports is not valid Python, or fails while
    it is imported. Lack of memory and errors of the disk are raised as they are.
    """
    try:
        return import_module(module)
    except (UserError, MemoryError, OSError):
        raise
    except SyntaxError as error:
        raise UserError(not_python(error)) from error
    except Exception as error:
        why = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{_place(error, module)}: cannot be imported ({why}); mend it, or move it away") from error


def not_python(error: SyntaxError | ValueError | RecursionError, file: object = None) -> str:
    """Returns one line for a file that is not valid Python; `file` is for errors that do not know theirs."""
    place = file if file is not None else getattr(error, "filename", None) or "a file"
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    why = error.msg if isinstance(error, SyntaxError) else one_line(error)
    return f"{place}{line}: not valid Python ({why}); mend it, or move it away"


def _place(error: Exception, module: str) -> str:
    """Returns the file of the library, and the line, in which an import failed."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    inside = [frame for frame in frames if frame.filename != __file__]
    return f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else module
