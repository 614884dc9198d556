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
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain

#: Bytes that the reading process may take beside those that it has at its start, its seconds of computing, and those
#: by the clock. The largest variable of a published file has 225 MB.
_MAX_MEMORY, _MAX_SECONDS, _PATIENCE_S = 2 << 30, 600, 3600


def read_mat(path: Path, names: Sequence[str]) -> list[Any]:
    """Returns variables of a MATLAB file by their names.

    An array of real numbers comes as a NumPy array, text as a string, and an array of structs as a list of dicts.
    Anything else is None. Raises UserError if the file is damaged or does not have the variables.
    """
    try:
        check_plain(path)
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _confine) as pool:
            values = pool.submit(_load, path, names).result()
    except BrokenProcessPool as error:
        raise _damaged(path, "the reader crashes, or takes too long") from error
    except Exception as error:  # SciPy fails in many ways on damaged files
        raise _damaged(path, f"{type(error).__name__}: {one_line(error)}") from error
    if missing := [name for name in names if name not in values]:
        raise UserError(f"{path} has no {', '.join(missing)}; get it again")
    return [values[name] for name in names]


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path} is truncated or corrupt ({why}); get it again")


def _confine() -> None:
    """Bounds what a damaged file can do to the process that reads it, and keeps that process silent."""
    faulthandler.disable()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_PATIENCE_S)  # it ends the process, which the one that waits takes for a crash
    warnings.simplefilter("ignore")
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: _data_size() + _MAX_MEMORY,
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
