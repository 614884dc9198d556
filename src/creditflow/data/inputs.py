"""From stored bytes to what a network sees: size, channels and augmentation, on the device that holds the images."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional as F

from creditflow.core.errors import UserError, one_line
from creditflow.data.dataset import ImageFiles

#: torchvision's ratio of resized side to crop for its ImageNet weights.
_CROP_MARGIN = 256 / 224


@dataclass(frozen=True)
class InputSettings:
    """What a network sees of an image.

    Attributes:
        size: height and width; None keeps the dataset's own.
        resize: "squash" scales both sides to `size`; "crop" scales the shorter one to 256/224 of it and cuts the centre out.
        channels: 3 repeats a grey channel; None keeps the dataset's own.
    """

    size: int | None = None
    resize: str = "squash"
    channels: int | None = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1, not {self.size}")
        if self.resize not in ("squash", "crop"):
            raise ValueError(f"resize must be 'squash' or 'crop', not {self.resize!r}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels must be 1 or 3, not {self.channels}")


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images, at their stored size.

    Attributes:
        flip: mirror left and right with probability 1/2.
        pad: shift by up to this many pixels each way, black outside.
    """

    flip: bool = False
    pad: int = 0

    def __bool__(self) -> bool:
        return self.flip or self.pad > 0


def to_unit_interval(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def to_input(images: Tensor, settings: InputSettings) -> Tensor:
    """Returns uint8 images (N, C, H, W) as float32 in [0, 1] of the settings' size and channels, on their device.

    Raises UserError for channels that cannot be had from the images'.
    """
    x = to_unit_interval(images)
    if settings.size is not None:
        x = _resize(x, settings.size, settings.resize)
    if settings.channels is not None and settings.channels != x.shape[1]:
        if x.shape[1] != 1:
            raise UserError(
                f"input.channels: {settings.channels}, but the images have {x.shape[1]} channels; leave it out"
            )
        x = x.expand(-1, settings.channels, -1, -1).contiguous()
    return x


def _resize(x: Tensor, size: int, how: str) -> Tensor:
    height, width = x.shape[-2:]
    if how == "squash":
        return x if (height, width) == (size, size) else _interpolate(x, size, size)
    scale = round(size * _CROP_MARGIN) / min(height, width)
    x = _interpolate(x, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (x.shape[-2] - size) // 2, (x.shape[-1] - size) // 2
    return x[..., top : top + size, left : left + size].contiguous()


def _interpolate(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Returns uint8 images (N, C, H, W) changed at random; the draws come from a CPU generator, the work is the device's."""
    n, _, height, width = images.shape
    if settings.pad:
        padded = F.pad(images, [settings.pad] * 4)
        shifts = torch.randint(0, 2 * settings.pad + 1, (2, n), generator=generator).to(images.device)
        rows = (shifts[0, :, None] + torch.arange(height, device=images.device))[:, :, None]
        columns = (shifts[1, :, None] + torch.arange(width, device=images.device))[:, None, :]
        images = padded.permute(0, 2, 3, 1)[
            torch.arange(n, device=images.device)[:, None, None], rows, columns
        ].permute(0, 3, 1, 2)
    if settings.flip:
        flipped = (torch.rand(n, generator=generator) < 0.5).to(images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images


def decode(path: Path, settings: InputSettings) -> Tensor:
    """Returns an image file as uint8 (C, size, size); three channels unless the settings say one.

    Raises UserError, which names the file, if it cannot be read.
    """
    assert settings.size is not None
    size = settings.size
    try:
        with Image.open(path) as image:
            mode = "L" if settings.channels == 1 else "RGB"
            # JPEG decoders can halve the size while they decode; never below twice what is needed.
            image.draft(mode, (2 * size, 2 * size))
            pixels = image.convert(mode)
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image ({one_line(error)}); replace it, or prepare the dataset again"
        ) from error
    if settings.resize == "crop":
        scale = round(size * _CROP_MARGIN) / min(pixels.size)
        width, height = (max(size, round(side * scale)) for side in pixels.size)
        left, top = (width - size) // 2, (height - size) // 2
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    else:
        pixels = pixels.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels)
    return torch.from_numpy(array.copy() if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))).view(
        -1, size, size
    )


class Decoder:
    """Reads image files with threads: Pillow decodes and resizes without the interpreter's lock."""

    def __init__(self, files: ImageFiles, settings: InputSettings) -> None:
        self.files, self.settings = files, settings
        self._threads = ThreadPoolExecutor(max(1, torch.get_num_threads()))

    def __call__(self, chosen: Tensor) -> Tensor:
        """Returns uint8 (n, C, size, size) of the chosen files. Raises UserError as `decode` does."""
        paths = [self.files.folder / self.files.names[index] for index in chosen.tolist()]
        return torch.stack(list(self._threads.map(lambda path: decode(path, self.settings), paths)))
