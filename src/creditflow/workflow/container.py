"""The container image of this version and lock: its name, and whether it is there. Imports nothing heavy."""

import hashlib
from pathlib import Path

import creditflow
from creditflow.compute.container import digest_path
from creditflow.core.errors import UserError

FLAVOURS = ("cuda", "cpu")


def lock_hash(lock: Path) -> str:
    """Returns a short hash of the pinned requirements: a new lock means another image."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:10]


def image_path(folder: Path, lock: Path, flavour: str) -> Path:
    """Returns where the image of this version, lock and torch flavour lies."""
    return folder / f"creditflow-{creditflow.__version__}-{flavour}-{lock_hash(lock)}.sif"


def check_image(image: Path, flavour: str) -> None:
    """Raises UserError, with the command that builds it, if the image is not there."""
    if image.exists() and digest_path(image).exists():
        return
    others = sorted(path.name for path in image.parent.glob("*.sif") if path != image)
    how = (
        " and OPTIONS=\"--pip-options='--extra-index-url=...'\", PyTorch's index of CPU builds"
        if flavour == "cpu"
        else ""
    )
    why = f"; {', '.join(others)} belongs to another lock, version or flavour" if others else ""
    raise UserError(f"there is no image {image}{why}; build it with `make container FLAVOUR={flavour}`{how}")
