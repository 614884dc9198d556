"""The container image: its name, and what a record says of it. Imports nothing heavy."""

import hashlib
import os
from pathlib import Path
from typing import Any

import creditflow
from creditflow.errors import UserError

FLAVOURS = ("cuda", "cpu")


def lock_hash(lock: Path) -> str:
    """Returns a short hash of the pinned requirements: a new lock means another image."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:10]


def image_path(folder: Path, lock: Path, flavour: str) -> Path:
    """Returns where the image of this version, lock and torch flavour lies."""
    return folder / f"creditflow-{creditflow.__version__}-{flavour}-{lock_hash(lock)}.sif"


def digest_path(image: Path) -> Path:
    """Returns where `containers/build.py` notes the SHA-256 of an image."""
    return image.with_suffix(".sha256")


def check_image(image: Path, flavour: str) -> None:
    """Raises UserError, with the command that builds it, if the image is not there."""
    if image.exists() and digest_path(image).exists():
        return
    others = sorted(path.name for path in image.parent.glob("*.sif") if path != image)
    how = " and OPTIONS=\"--pip-options='--extra-index-url=...'\", PyTorch's index of CPU builds" if flavour == "cpu" else ""
    why = f"; {', '.join(others)} belongs to another lock, version or flavour" if others else ""
    raise UserError(f"there is no image {image}{why}; build it with `make container FLAVOUR={flavour}`{how}")


def running_image() -> dict[str, Any] | None:
    """Returns name and SHA-256 of the image that this process runs in; None outside a container."""
    path = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not path:
        return None
    # The path is the host's, links resolved; inside, perhaps only the working directory is there.
    notes = [digest_path(Path(path)), Path("containers") / digest_path(Path(path)).name]
    digests = [note.read_text().split()[0] for note in notes if note.exists()]
    return {"name": Path(path).name, "sha256": digests[0] if digests else None}
