"""The container image of this version and lock: its name, and whether it is the one that was built.

This file imports nothing heavy.
"""

import hashlib
from contextlib import suppress
from pathlib import Path

import creditflow
from creditflow.compute.container import digest_path, noted_digest
from creditflow.core.errors import UserError
from creditflow.core.files import file_sha256, visible_files, write_atomically

FLAVOURS = ("cuda", "cpu")


def lock_hash(lock: Path) -> str:
    """Returns a short hash of the pinned requirements: a new lock means another image."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:10]


def image_path(folder: Path, lock: Path, flavour: str) -> Path:
    """Returns where the image of this version, lock and torch flavour lies."""
    return folder / f"creditflow-{creditflow.__version__}-{flavour}-{lock_hash(lock)}.sif"


def check_image(image: Path, flavour: str) -> None:
    """Raises UserError, with the command that builds it, unless the image is there and is the one that was built.

    The SHA-256 of the image is compared with the one that `containers/build.py` noted. As that reads gigabytes, the
    result is kept in a file beside the image until the image changes.
    """
    how = (
        " and OPTIONS=\"--pip-options='--extra-index-url=...'\", PyTorch's index of CPU builds"
        if flavour == "cpu"
        else ""
    )
    noted = noted_digest(image)
    if not image.exists():
        others = sorted(path.name for path in visible_files(image.parent, "*.sif") if path != image)
        why = f"; {', '.join(others)} belongs to another lock, version or flavour" if others else ""
        raise UserError(f"there is no image {image}{why}; build it with `make container FLAVOUR={flavour}`{how}")
    if noted is None:
        raise UserError(
            f"nothing is known of {image}, as {digest_path(image).name} does not give its SHA-256;"
            f" build it with `make container FLAVOUR={flavour}`{how}"
        )
    state = image_state(image, noted)
    record = image.with_suffix(".verified")
    if _text(record) == state:
        return
    digest = file_sha256(image)
    if digest != noted:
        raise UserError(
            f"{image} is not the image that was built: its SHA-256 begins with {digest[:8]}, but"
            f" {digest_path(image).name} says {noted[:8]}; build it with `make container FLAVOUR={flavour}`{how}"
        )
    with suppress(OSError):  # in a folder that cannot be written to, every start reads the whole image
        write_atomically(record, state.encode())


def image_state(image: Path, digest: str) -> str:
    """Returns a text that changes whenever somebody writes the image, replaces it or notes another SHA-256."""
    status = image.stat()
    return f"{digest} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}\n"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
