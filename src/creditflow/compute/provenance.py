"""Provenance: what determined a result, and what a run cost.

Code, configuration, versions and device determine a result. A run costs time and memory, on some host.
"""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import torch

import creditflow
from creditflow.compute.container import running_container
from creditflow.core import plugins
from creditflow.core.environment import without_git
from creditflow.core.errors import one_line
from creditflow.core.files import fingerprint, visible_files, warn
from creditflow.core.run_memory import remembered

_PROVENANCE_PACKAGES = ("torch", "torchvision", "numpy", "foolbox", "safetensors")


class Stopwatch:
    """Measures a job, from the construction of the object to the call of `run_facts`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = time.perf_counter()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def run_facts(self) -> dict[str, Any]:
        """Returns what differs between two runs of the same job: time in seconds, memory in MiB, host, processor."""
        facts: dict[str, Any] = {
            "started": self.started,
            "wall_time_s": round(time.perf_counter() - self.start, 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "host": platform.node(),
            "processor": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_model(),
        }
        if self.device.type == "cuda":
            facts["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        return facts


@cache
def cpu_model() -> str:
    """Returns the CPU's model, such as "AMD EPYC 9V74 80-Core Processor"; its architecture where nothing says more."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [
        value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == "model name"
    ]
    return next(filter(None, models), "") or platform.processor() or platform.machine()


def provenance_of(settings: Any, device: torch.device) -> dict[str, Any]:
    """Returns what determines a result and is the same in every run: code, configuration, versions, device, CPU.

    PyTorch has a kernel for each set of instructions, such as AVX2 or AVX512, and MKL and oneDNN choose theirs by the
    CPU's model. Their results differ in the last bits, on a GPU's host, too, where some work stays on the CPU.

    `settings` is everything that says which job this is, as JSON-like values; its fingerprint is recorded.
    """
    return {
        "creditflow": creditflow.__version__,
        "git_commit": git_commit(),
        "source_hash": source_hash(),
        "config_hash": fingerprint(settings),
        "device": device.type,
        "cpu": cpu_model(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "container": running_container(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PROVENANCE_PACKAGES},
    }


#: What determines a result, beside the data. A change here, or a new file here, makes a commit "dirty".
_CODE = ("Snakefile", "rules", "src", "config")


#: Seconds that git has for each answer; on a busy network disk it may need many.
_GIT_PATIENCE_S = 30


@cache
def git_commit() -> str | None:
    """Returns the commit of the code that runs, with `-dirty` if the code differs from the commit.

    It is None if the code does not lie in its own repository: in an installed copy or an unpacked archive. It is None
    with a warning, which says why, if the code lies in its repository and git does not name the commit.
    """
    root = Path(__file__).resolve().parents[3]
    if not ((root / ".git").exists() and (root / "Snakefile").exists()):
        return None
    try:
        place, _, commit = _git(root, "rev-parse", "--show-toplevel", "HEAD").rpartition("\n")
        if Path(place) == root:
            changes = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", *_CODE)
            return f"{commit}-dirty" if changes else commit
        why = ".git is no repository of its own"
    except subprocess.TimeoutExpired:
        why = f"git does not answer within {_GIT_PATIENCE_S} s"
    except subprocess.CalledProcessError as error:
        why = " ".join(error.stderr.split()) or f"git ends with exit code {error.returncode}"
    except OSError as error:
        why = f"git cannot be run: {one_line(error)}"
    warn(f"records will not name the commit of {root} ({why}); the hash of all sources is in them")
    return None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        env=without_git(os.environ),
        check=True,
        timeout=_GIT_PATIENCE_S,
    )
    return done.stdout.strip()


@cache
def source_hash() -> str:
    """Returns a short hash of all files of the library and of the stages, as they are on disk.

    The files of plugins that other distributions bring are among them.
    """
    source = Path(__file__).resolve().parents[2]
    outside = sorted(plugins.outside_sources().items())
    paths = chain(_python_files(source), (path for _, path in outside))
    return remembered(f"sources of {source}, {[name for name, _ in outside]}", paths, lambda: _hash(source, outside))


def _python_files(source: Path) -> Iterator[Path]:
    """Yields all files that `_hash` may read, and perhaps some more: a walk is faster than a glob pattern."""
    if (source.parent / "Snakefile").exists():
        yield from sorted(source.glob("*.py"))
    for folder, folders, names in os.walk(source / "creditflow"):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _hash(source: Path, outside: list[tuple[str, Path]]) -> str:
    # Beside an installed creditflow lie other packages.
    stages = visible_files(source, "*.py") if (source.parent / "Snakefile").exists() else []
    paths = sorted([*stages, *visible_files(source, "creditflow/**/*.py")])
    named = [(str(path.relative_to(source)), path) for path in paths] + outside
    return fingerprint([[name, path.read_text(encoding="utf-8", errors="surrogateescape")] for name, path in named])


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
