"""What a network sees of a dataset's images: settings that need neither torch nor the images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from creditflow.core.settings import SettingsModel


class InputSettings(SettingsModel):
    """What a network sees of an image."""

    size: int | None = Field(None, ge=1, le=10_000)
    """Height and width in pixels; the dataset's own if absent. Datasets whose images are files need one."""
    resize: Literal["squash", "crop"] = "squash"
    """How an image gets this size: both sides are scaled to `size` (`squash`), or the shorter side is scaled to 256/224
    of `size` and the centre is cut out (`crop`)."""
    channels: Literal[1, 3] | None = None
    """Number of channels: 3 repeats a grey channel. The dataset's own if absent."""
    upsample: int | None = Field(None, ge=1, le=10_000)
    """Height and width in pixels to which the network itself enlarges its images, bilinearly. It then also repeats a
    grey channel where `channels` is 3. Attacks change the images before, so that epsilon is one of the image that
    people see. If absent, networks take the images as they are."""

    def without_effect(self) -> Iterator[tuple[str, str]]:
        """Yields the way to a size that is not asked for."""
        if self.size is None:
            yield "resize", "without size"


class SplitSettings(SettingsModel):
    """How the images of a folder without `train` and `test` are split."""

    test: float = Field(gt=0, lt=1)
    """Share of the images of each class that test the networks; at least one image of a class tests, and one trains."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Another seed chooses other images."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, at the size in which they are stored.

    Attributes:
        flip: mirror an image left and right with probability 1/2.
        pad: shift an image by up to this many pixels in each direction; what comes from outside is black.
    """

    flip: bool = False
    pad: int = 0

    def __bool__(self) -> bool:
        return self.flip or self.pad > 0
