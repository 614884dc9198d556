"""Runs a stage in this very process, which dies or finds the disk full when the environment says so.

Usage: run.py STAGE ARGUMENT...  CRASH_AT, CRASH_ONCE and CRASH_BELOW are as for `sitecustomize.py`. No file grows
beyond FULL_BEYOND bytes. WITHOUT_PRIVILEGE: permissions hold for root, too.
"""

import ctypes
import importlib.util
import os
import resource
import runpy
import sys

# By its path, which sets the hook: a fork may have the system's own module of that name, as on Debian.
_path = os.path.join(os.path.dirname(__file__), "sitecustomize.py")  # noqa: PTH118, PTH120 - it imports little
_spec = importlib.util.spec_from_file_location("crash", _path)
assert _spec is not None and _spec.loader is not None
_spec.loader.exec_module(importlib.util.module_from_spec(_spec))

#: linux/capability.h and linux/prctl.h
_VERSION_3, _CAP_DAC_OVERRIDE, _PR_CAPBSET_DROP = 0x20080522, 1, 24


def _drop_privilege() -> None:
    """Takes from this process what lets root write where permissions forbid it; a user has no such privilege."""
    header, sets = (ctypes.c_uint32 * 2)(_VERSION_3, 0), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable
    library = ctypes.CDLL(None, use_errno=True)
    if library.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capget")
    sets[0] &= ~(1 << _CAP_DAC_OVERRIDE)
    sets[1] &= ~(1 << _CAP_DAC_OVERRIDE)
    if library.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
    if library.prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0) and os.geteuid() == 0:  # what it starts
        raise OSError(ctypes.get_errno(), "prctl")


if os.environ.get("WITHOUT_PRIVILEGE"):
    _drop_privilege()
if limit := os.environ.get("FULL_BEYOND"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120
runpy.run_path(sys.argv[0], run_name="__main__")
