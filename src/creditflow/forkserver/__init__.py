"""Short stages without their start-up: forked from a process that has loaded their libraries (`server.py`)."""

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

#: Stages that take seconds; loading PyTorch again for each would take as long as the science.
STAGES = (
    "attack", "attack_retrieval", "audit", "collect", "encode", "evaluate", "make_table", "plot_figure", "retrieve", "select_member",
)  # fmt: skip

#: Of those stages; never creditflow itself, whose files may change between two jobs.
LIBRARIES = ("torch", "foolbox", "safetensors.torch", "pandas", "pyarrow.parquet", "matplotlib.figure")

#: From as many jobs on it pays.
MIN_JOBS = 8

_HERE = Path(__file__).parent
_servers: list["subprocess.Popen[bytes]"] = []


def start() -> str:
    """Starts the server, which ends some time after this process; returns a Bash function that has `python STAGE` run by it.

    All other calls of `python` stay as they are, and so do those of stages, should the server have ended.
    """
    socket = Path(tempfile.mkdtemp(prefix="creditflow-")) / "socket"
    python = shutil.which("python")  # the jobs' one
    assert python
    # Its standard input is the pipe's other end, so that it sees this process end, however it does.
    # Libraries of linear algebra must not start threads, which forks would lack; stages set the number that they want.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [python, str(_HERE / "server.py"), str(socket), *LIBRARIES]
    _servers.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment))
    client = shlex.join([str(_HERE / "client.py"), str(socket)])
    stages = "|".join(f"src/{name}.py" for name in STAGES)
    return f'python() {{ case "${{1-}}" in {stages}) command python -I -S {client} "$@" ;; *) command python "$@" ;; esac; }}; '
