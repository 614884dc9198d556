"""From stored bytes to what a network sees: size, channels and augmentation, on the device that holds the images."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from creditflow.core.errors import UserError
from creditflow.data.dataset import ImageFiles
from creditflow.data.image_files import CROP_MARGIN, fit, read_image
from creditflow.data.settings import Augmentation, InputSettings


def to_unit_interval(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1]."""
    return images.to(torch.float32) / 255


def to_input(images: Tensor, settings: InputSettings) -> Tensor:
    """Returns uint8 images (N, C, H, W) as float32 in [0, 1] of the settings' size and channels, on the same device.

    A network that enlarges its images (`upsample`) repeats a grey channel itself.

    Raises UserError if the settings ask for a number of channels that the images cannot be given.
    """
    x = to_unit_interval(images)
    if settings.size is not None:
        x = _resize(x, settings.size, settings.resize)
    if settings.channels is not None and settings.channels != x.shape[1]:
        if x.shape[1] != 1:
            raise UserError(
                f"input.channels: {settings.channels}, but the images have {x.shape[1]} channels; leave it out"
            )
        if settings.upsample is None:
            x = x.expand(-1, settings.channels, -1, -1).contiguous()
    return x


def _resize(x: Tensor, size: int, how: str) -> Tensor:
    height, width = x.shape[-2:]
    if how == "squash":
        return x if (height, width) == (size, size) else _interpolate(x, size, size)
    scale = round(size * CROP_MARGIN) / min(height, width)
    x = _interpolate(x, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (x.shape[-2] - size) // 2, (x.shape[-1] - size) // 2
    return x[..., top : top + size, left : left + size].contiguous()


def _interpolate(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Returns uint8 images (N, C, H, W), changed at random.

    The random numbers come from a generator on the CPU; the images are changed on the device where they are.
    """
    if settings.pad:
        images = _shift(images, settings.pad, generator)
    if settings.flip:
        flipped = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    return images


def _shift(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Returns images that are each shifted by up to `pad` pixels; black comes in from outside."""
    n, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, [pad] * 4).permute(0, 2, 3, 1)
    shifts = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(device)
    rows = (shifts[0, :, None] + torch.arange(height, device=device))[:, :, None]
    columns = (shifts[1, :, None] + torch.arange(width, device=device))[:, None, :]
    return padded[torch.arange(n, device=device)[:, None, None], rows, columns].permute(0, 3, 1, 2)


def decode(path: Path, settings: InputSettings) -> Tensor:
    """Returns an image file as uint8 (C, size, size), with one channel if the settings ask for one, and three
    otherwise.

    Raises UserError, which names the file, as `image_files.read_image` does.
    """
    assert settings.size is not None
    size = settings.size
    pixels = read_image(path, "L" if settings.channels == 1 else "RGB", size)
    array = np.asarray(fit(pixels, size, settings.resize))
    array = array.copy() if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    return torch.from_numpy(array).view(-1, size, size)


class Decoder:
    """Reads image files with several threads: Pillow decodes and resizes without the interpreter's lock."""

    def __init__(self, files: ImageFiles, settings: InputSettings) -> None:
        self.files, self.settings = files, settings
        self._threads = ThreadPoolExecutor(max(1, torch.get_num_threads()))

    def __call__(self, chosen: Tensor) -> Tensor:
        """Returns the files of the chosen indices (n,) as uint8 (n, C, size, size). Raises UserError as `decode`."""
        paths = [self.files.folder / self.files.names[index] for index in chosen.tolist()]
        return torch.stack(list(self._threads.map(lambda path: decode(path, self.settings), paths)))
