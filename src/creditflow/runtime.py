"""What every job needs from the machine: device, threads, random generators, checkpoints, provenance."""

import contextlib
import ctypes
import gc
import hashlib
import io
import os
import pickle
import platform
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# While modules load nothing becomes garbage; looking for it, then and later among them, costs a fifth of a short job.
gc.disable()
import torch

gc.freeze()
gc.enable()

import creditflow
from creditflow import gpus
from creditflow.errors import UserError
from creditflow.files import fingerprint, write_atomically
from creditflow.image import running_image

_PROVENANCE_PACKAGES = ("torch", "torchvision", "numpy", "foolbox", "safetensors")

#: Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


# --- device and threads ------------------------------------------------------------------------------------------


@contextmanager
def no_denormals() -> Iterator[None]:
    """Has the CPU take numbers below 1.2e-38 as zero.

    Weight decay drives the weights of dead units down there, and Intel's processors are a hundred times slower with them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def setup(device: str, threads: int) -> torch.device:
    """Sets the CPU threads and deterministic kernels, and returns the device.

    `device` is `auto` (CUDA where there is one), `cpu`, `cuda` or `cuda:N`. For `auto` and `cuda` the process takes
    a GPU slot where the workflow has announced some. Raises UserError for anything else, for a CUDA device that does
    not exist, and where `auto` would fall back to the CPU although a GPU was assigned.
    """
    torch.set_num_threads(threads)
    if device in ("auto", "cuda"):
        gpus.take_slot()
    _keep_freed_memory()
    try:
        chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    except RuntimeError as error:
        raise UserError(f"--device {device!r} is not a device; use auto, cpu, cuda or cuda:N") from error
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"--device {device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if chosen.type == "cpu" and device == "auto":
        gpus.check_promised()
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {device!r}: this machine has {torch.cuda.device_count()} CUDA devices; use --device auto")
    if chosen.type == "cuda":
        _make_cuda_deterministic()
    return chosen


def _keep_freed_memory() -> None:
    # glibc gives every freed activation back to the kernel and asks for it again: a fifth of an attack's time.
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _make_cuda_deterministic() -> None:
    # Not called for the CPU, whose kernels used here are deterministic anyway: the call costs 1.5 s of imports.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first call
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


# --- random numbers ----------------------------------------------------------------------------------------------


def derive_seed(*names: str | int) -> int:
    """Returns a 63-bit seed that depends on all names, so that streams named differently are independent."""
    text = "\x1f".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Returns the random generator that belongs to these names, for example `generator("finetune", "order", seed)`."""
    return torch.Generator(device=device).manual_seed(derive_seed(*names))


@contextmanager
def global_seed(*names: str | int) -> Iterator[None]:
    """Seeds torch's global generators for code that offers no generator argument, and restores them afterwards."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive_seed(*names))
        yield


# --- checkpoints -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its checkpoint, and the fingerprint of all that determines the run."""

    path: Path
    identity: str


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Saves a resume point, atomically. `identity` is the fingerprint of everything that determines the job."""
    buffer = io.BytesIO()
    torch.save({"identity": identity, "state": state}, buffer)
    content = buffer.getvalue()
    write_atomically(path, hashlib.sha256(content).digest() + content)


def load_checkpoint(path: Path, identity: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Returns the saved state, or None (after a warning) if the file is damaged or belongs to another job.

    The content is verified by its SHA-256 first and then read with `weights_only=True`: nothing is unpickled.
    """
    if not path.exists():
        return None
    content = path.read_bytes()
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        warn(f"ignoring the damaged checkpoint {path}; starting from the beginning")
        return None
    try:
        saved = torch.load(io.BytesIO(content[32:]), weights_only=True, map_location="cpu")
        its = saved["identity"]
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, EOFError):
        warn(f"ignoring {path}, which is no checkpoint; starting from the beginning")
        return None
    if its != identity:
        warn(f"ignoring the checkpoint {path}: it belongs to other settings or inputs; starting from the beginning")
        return None
    state: dict[str, Any] = saved["state"]
    return state


# --- provenance --------------------------------------------------------------------------------------------------


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


def provenance(settings: Any, device: torch.device) -> dict[str, Any]:
    """Returns what determines a result and is the same in every run of it: code, configuration, versions, device."""
    return {
        "creditflow": creditflow.__version__,
        "git_commit": git_commit(),
        "source_hash": source_hash(),
        "config_hash": fingerprint(settings),
        "device": device.type,
        "threads": torch.get_num_threads(),
        "container": running_image(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PROVENANCE_PACKAGES},
    }


#: What decides a result, beside the data: a change here, also a new file, makes a commit "dirty".
_CODE = ("Snakefile", "rules", "src", "config")


@cache
def git_commit() -> str | None:
    """Returns the commit of the code that runs, with `-dirty` if the code differs from it; None outside its repository."""
    root = Path(__file__).resolve().parents[2]
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root or not (root / "Snakefile").exists():
        return None  # an installed copy or an unpacked archive: a repository around it is somebody else's
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *_CODE)
    if commit is None or changes is None:
        return None
    return f"{commit}-dirty" if changes else commit


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@cache
def source_hash() -> str:
    """Returns a short hash of the library's and the stages' files as they are on disk."""
    source = Path(__file__).resolve().parents[1]
    paths = sorted([*source.glob("*.py"), *source.glob("creditflow/**/*.py")])
    return fingerprint([[str(path.relative_to(source)), path.read_text()] for path in paths])


@cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
