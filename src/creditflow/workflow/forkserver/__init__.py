"""Stages without their start-up: they are forked from a process that has loaded their libraries (`server.py`)."""

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

#: Stages that train. PyTorch loads a compiler for each, which takes a second.
TRAINING = ("finetune", "pretrain", "train_population")

#: Stages that load PyTorch or pandas. Most take seconds, and would need as long again to load their libraries.
STAGES = (
    "attack",
    "attack_retrieval",
    "audit",
    "collect",
    "encode",
    "evaluate",
    "import_model",
    "import_weights",
    "make_table",
    "measure_gradients",
    "measure_nullspace",
    "plot_figure",
    "retrieve",
    "select_member",
    *TRAINING,
)

#: Libraries of those stages; never creditflow itself, whose files may change between two jobs.
#: The parts of pydantic are named, as `import pydantic` itself loads none of them; `root_model` has it look for its
#: plugins, in the files of each installed distribution.
LIBRARIES = (
    "torch",
    "foolbox",
    "safetensors.numpy",
    "safetensors.torch",
    "scipy.stats",
    "pandas",
    "pandas.io.formats.style",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "matplotlib.style",
    "pydantic.main",
    "pydantic.fields",
    "pydantic.functional_validators",
    "pydantic.root_model",
    "pydantic.types",
)

#: What PyTorch imports when an optimizer is made.
LIBRARIES_OF_TRAINING = ("torch._dynamo",)

#: The number of jobs from which on a server saves time.
MIN_JOBS = 8

#: A forked process has one thread, so the server must have no other. Stages set the number that PyTorch is to use.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}

_HERE = Path(__file__).parent

#: Kept, as the other end of its standard input tells a server that this process lives.
_servers: list["subprocess.Popen[bytes]"] = []


def start(script: Callable[[str], str], *, trains: bool = False) -> str:
    """Starts a server. It ends after this process and its last fork have ended.

    Args:
        script: stage -> the path of its script, as jobs call it.
        trains: whether stages that train are among the jobs.

    Returns:
        A Bash function `python`, which has the server run `STAGES`. All other calls of `python` stay as they are, and
        so do those of stages that the server cannot serve. The text is empty where no socket can be made in the folder
        for temporary files.
    """
    try:
        server, client = launch((*LIBRARIES, *(LIBRARIES_OF_TRAINING if trains else ())))
    except OSError:  # the folder is full or read-only, or its path has a hundred characters
        return ""
    _servers.append(server)
    stages = "|".join(shlex.quote(script(name)) for name in STAGES)
    served = f'command {shlex.join(client)} "$@"'
    return f'python() {{ case "${{1-}}" in {stages}) {served} ;; *) command python "$@" ;; esac; }}; '


def launch(libraries: Sequence[str]) -> tuple["subprocess.Popen[bytes]", list[str]]:
    """Returns a server and the command that runs a stage in a fork of it. Raises OSError if no socket can be made."""
    folder = Path(tempfile.mkdtemp(prefix="creditflow-forks-"))
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(folder / "socket"))
            listening.listen(1024)  # clients wait while the libraries load
            server = _serve(listening.fileno(), libraries)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return server, [sys.executable, "-I", "-S", str(_HERE / "client.py"), str(folder / "socket")]


def _serve(descriptor: int, libraries: Sequence[str]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(_HERE / "server.py"), str(descriptor), *libraries]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, pass_fds=[descriptor], start_new_session=True, env=os.environ | _ONE_THREAD
    )
