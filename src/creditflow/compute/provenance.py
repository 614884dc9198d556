"""Provenance: what determined a result (code, configuration, versions, device), and what a run took (time, memory, host)."""

import platform
import resource
import subprocess
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import creditflow
from creditflow.compute.container import running_container
from creditflow.core.files import fingerprint

_PROVENANCE_PACKAGES = ("torch", "torchvision", "numpy", "foolbox", "safetensors")


class Stopwatch:
    """Measures a job, from construction to `run_facts`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.start = time.perf_counter()
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def run_facts(self) -> dict[str, Any]:
        """Returns what differs between two runs of the same job: times, memory, host, hardware."""
        facts: dict[str, Any] = {
            "started": self.started,
            "wall_time_s": round(time.perf_counter() - self.start, 3),
            "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "host": platform.node(),
            "processor": _processor(self.device),
        }
        if self.device.type == "cuda":
            facts["peak_gpu_memory_mib"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        return facts


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def provenance_of(settings: Any, device: torch.device) -> dict[str, Any]:
    """Returns what determines a result and is the same in every run of it: code, configuration, versions, device."""
    return {
        "creditflow": creditflow.__version__,
        "git_commit": git_commit(),
        "source_hash": source_hash(),
        "config_hash": fingerprint(settings),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "container": running_container(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PROVENANCE_PACKAGES},
    }


#: What decides a result, beside the data: a change here, also a new file, makes a commit "dirty".
_CODE = ("Snakefile", "rules", "src", "config")


@cache
def git_commit() -> str | None:
    """Returns the commit of the code that runs, with `-dirty` if the code differs from it; None outside its repository."""
    root = Path(__file__).resolve().parents[3]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root or not (root / "Snakefile").exists():
        return None  # an installed copy or an unpacked archive: a repository around it is somebody else's
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *_CODE)
    if commit is None or changes is None:
        return None
    return f"{commit}-dirty" if changes else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def source_hash() -> str:
    """Returns a short hash of the library's and the stages' files as they are on disk."""
    source = Path(__file__).resolve().parents[2]
    paths = sorted([*source.glob("*.py"), *source.glob("creditflow/**/*.py")])
    return fingerprint([[str(path.relative_to(source)), path.read_text()] for path in paths])


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
