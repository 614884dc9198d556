"""Runs a stage in this very process, which dies or finds the disk full when the environment says so.

Usage: run.py STAGE ARGUMENT...  CRASH_AT and CRASH_BELOW are as for `sitecustomize.py`. No file grows beyond
FULL_BEYOND bytes.
"""

import os
import resource
import runpy
import sys

sys.path.insert(0, os.path.dirname(__file__))  # noqa: PTH120 - as `sitecustomize.py`, it imports little
import sitecustomize  # noqa: F401 - its import sets the hook

if limit := os.environ.get("FULL_BEYOND"):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])  # noqa: PTH120
runpy.run_path(sys.argv[0], run_name="__main__")
