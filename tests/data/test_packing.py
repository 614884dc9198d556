"""Which image files are grey, for `prepare` and for the audit alike, and what that makes of a folder of them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from creditflow.data.dataset import ImageFiles
from creditflow.data.packing import is_grey, packed
from creditflow.instrument.images import load_images

DEEP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
GREY = Image.fromarray((DEEP >> 8).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (GREY, True),
        (GREY.convert("1"), True),
        (GREY.convert("LA"), True),  # opaque
        (Image.fromarray(DEEP), True),
        (GREY.convert("RGB"), False),
        (GREY.convert("RGBA"), False),
        (GREY.convert("P"), False),
    ],
)
def test_the_data_and_the_audit_agree_on_what_is_grey(image: Image.Image, grey: bool, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "0.png")
    assert is_grey(tmp_path / "a/0.png") == grey
    files = ImageFiles(tmp_path, ["a/0.png", "b/0.png"])
    images, _ = packed({"train": (files, np.arange(2))})["train"]
    audited, labels = load_images(str(tmp_path))
    assert isinstance(images, np.ndarray) and images.shape == (2, 1 if grey else 3, 8, 8)
    assert torch.equal(audited, torch.from_numpy(images).float() / 255) and labels.tolist() == [0, 1]


def test_what_cannot_be_read_is_not_grey(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nonsense")
    assert not is_grey(tmp_path / "x.png") and not is_grey(tmp_path / "absent") and not is_grey(tmp_path)
