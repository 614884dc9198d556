"""What a process knows about the container image that it runs in. This file imports neither torch nor pandas."""

import os
from pathlib import Path
from typing import Any


def digest_path(image: Path) -> Path:
    """Returns the file in which `containers/build.py` notes the SHA-256 of an image."""
    return image.with_suffix(".sha256")


def noted_digest(image: Path) -> str | None:
    """Returns the SHA-256 that was noted of an image; None if there is no note, or nothing in it."""
    try:
        words = digest_path(image).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return words[0] if words else None


def running_container() -> dict[str, Any] | None:
    """Returns `name` and `sha256` of the image that this process runs in; None outside a container.

    `sha256` is None if nobody has noted it.
    """
    path = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not path:
        return None
    # The path is the one on the host, with links resolved. Inside, perhaps only the working directory can be seen.
    image = Path(path)
    return {"name": image.name, "sha256": noted_digest(image) or noted_digest(Path("containers", image.name))}
