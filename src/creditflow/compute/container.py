"""What a process knows of the container image that it runs in. Imports nothing heavy."""

import os
from pathlib import Path
from typing import Any


def digest_path(image: Path) -> Path:
    """Returns where `containers/build.py` notes the SHA-256 of an image."""
    return image.with_suffix(".sha256")


def running_container() -> dict[str, Any] | None:
    """Returns name and SHA-256 of the image that this process runs in; None outside a container."""
    path = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    if not path:
        return None
    # The path is the host's, links resolved; inside, perhaps only the working directory is there.
    notes = [digest_path(Path(path)), Path("containers") / digest_path(Path(path)).name]
    digests = [note.read_text().split()[0] for note in notes if note.exists()]
    return {"name": Path(path).name, "sha256": digests[0] if digests else None}
