"""MATLAB files, as SVHN and the ImageNet development kit have them, read by SciPy.

SciPy's reader can crash on a damaged file (about one in thirty with a few wrong bytes), and takes the memory that the
file asks for. So it runs in a process of its own, whose end is an error like any other.
"""

import faulthandler
import multiprocessing
import resource
import signal
import warnings
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain

#: Bytes that the reading process may take beside those that it has at its start, its seconds of computing, and those
#: by the clock. The largest variable of a published file has 225 MB.
_MAX_MEMORY, _MAX_SECONDS, _PATIENCE_S = 2 << 30, 600, 3600
#: What any file may take, and what each of its bytes may: zlib makes at most 1,032 bytes of one. A small file that is
#: damaged would else have the system clear two gigabytes before it is refused.
_MEMORY_OF_ANY, _MEMORY_OF_A_BYTE = 16 << 20, 4096


def read_mat(path: Path, names: Sequence[str]) -> list[Any]:
    """Returns variables of a MATLAB file by their names.

    An array of real numbers comes as a NumPy array, text as a string, and an array of structs as a list of dicts.
    Anything else is None. Raises UserError if the file is damaged or does not have the variables.
    """
    try:
        check_plain(path)
        values, why = _apart(path, names)
    except EOFError as error:
        raise _damaged(path, "the reader crashes, or takes too long") from error
    except OSError as error:
        raise _damaged(path, f"{type(error).__name__}: {one_line(error)}") from error
    if why:
        raise _damaged(path, why)
    if missing := [name for name in names if name not in values]:
        raise UserError(f"{path} has no {', '.join(missing)}; get it again")
    return [values[name] for name in names]


def _apart(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Returns what a process of its own reads, and why it fails if it does. Raises EOFError if it ends silently."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, path, names, _memory(path)))
    process.start()
    sender.close()
    try:
        answer: tuple[dict[str, Any], str] = receiver.recv()
    finally:
        process.kill()
        process.join()
        receiver.close()
    return answer


def _answer(sender: Connection, path: Path, names: Sequence[str], memory: int) -> None:
    """Sends what is in the file, or why it cannot be read; runs in the process that reads."""
    _confine(memory)
    try:
        sender.send((_load(path, names), ""))
    except Exception as error:  # SciPy fails in many ways on damaged files
        sender.send(({}, f"{type(error).__name__}: {one_line(error)}"))


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is truncated or corrupt ({why}); get it again")


def _memory(path: Path) -> int:
    """Returns the bytes that the reading process may take for a file."""
    return min(_MAX_MEMORY, _MEMORY_OF_ANY + _MEMORY_OF_A_BYTE * path.stat().st_size)


def _confine(memory: int) -> None:
    """Bounds what a damaged file can do to the process that reads it, and keeps that process silent."""
    faulthandler.disable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_PATIENCE_S)  # it ends the process, which the one that waits takes for a crash
    warnings.simplefilter("ignore")
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: _data_size() + memory,
        resource.RLIMIT_CPU: _MAX_SECONDS,
    }
    for kind, limit in limits.items():
        _, most = resource.getrlimit(kind)
        resource.setrlimit(kind, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _data_size() -> int:
    """Returns the bytes of data that this process holds."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0


def _load(path: Path, names: Sequence[str]) -> dict[str, Any]:
    content = loadmat(str(path), appendmat=False, variable_names=names)
    return {name: _value(content[name]) for name in names if name in content}


def _value(array: np.ndarray[Any, np.dtype[Any]], inside: bool = False) -> Any:
    if array.dtype.kind in "iuf":
        return array
    if array.dtype.kind == "U":
        return "".join(array.ravel().tolist())
    if array.dtype.names and not inside:
        structs = array.ravel(order="F")
        return [{field: _value(struct[field], inside=True) for field in array.dtype.names} for struct in structs]
    return None
