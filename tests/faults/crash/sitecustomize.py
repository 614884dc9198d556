"""Kills the process, as kill -9 does, at its nth change of a file below a folder. Python imports this by its name.

Where CRASH_ONCE names a file, changes count from when it is there.
"""

import os
import signal
import sys

_BELOW, _LEFT = os.environ.get("CRASH_BELOW", ""), [int(os.environ.get("CRASH_AT", "0"))]
_ONCE = os.environ.get("CRASH_ONCE", "")
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "fcntl.flock"}


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        changes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    else:
        path, changes = (arguments[0] if arguments else ""), event in _CHANGES
    if not changes or (_ONCE and not os.path.exists(_ONCE)):  # noqa: PTH110 - an audit hook imports nothing
        return
    name = os.fspath(path) if isinstance(path, str | bytes | os.PathLike) else ""  # type: ignore[arg-type]
    name = name.decode() if isinstance(name, bytes) else name
    if event == "fcntl.flock" or os.path.abspath(name).startswith(_BELOW):  # noqa: PTH100 - an audit hook imports nothing
        _LEFT[0] -= 1
        if _LEFT[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


if _BELOW and _LEFT[0] > 0:
    sys.addaudithook(_watch)
