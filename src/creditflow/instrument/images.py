"""Images for the command line: a folder of classes, an .npz file, or a prepared dataset of ours."""

import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError, one_line
from creditflow.core.files import as_path, check_plain
from creditflow.data.formats.npz import read_array
from creditflow.data.image_files import fit, read_image
from creditflow.data.image_folders import images_by_class
from creditflow.data.packing import is_grey
from creditflow.data.prepared import load_prepared
from creditflow.data.settings import InputSettings

Bounds = tuple[float, float]

#: The most bytes of an array in an .npz file.
_MAX_ARRAY = 8 << 30
#: Where the workflow puts a prepared dataset, below its working directory.
_PREPARED = "results/data/{name}/prepared.safetensors"


def load_images(
    source: str, *, bounds: Bounds = (0.0, 1.0), size: int | None = None, count: int | None = None, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Returns images float32 (N, C, H, W) within the bounds, which are [0, 1] by default, and labels int64 (N,).

    Args:
        source: one of these:
            a folder with a folder for each class; the names of the classes in their order are the labels 0, 1, ...;
            an .npz file with `images`, uint8 or float, (N, C, H, W), (N, H, W, C) or (N, H, W), and `labels` (N,);
            `dataset:digits`, the test images of a dataset that the workflow has prepared, below the working directory,
            or `dataset:path/to/prepared.safetensors`.
        bounds: lowest and highest value of a pixel. Pixels from 0 to 255 are scaled to them. Numbers in an .npz file
            that are float are taken as they are, and have to lie in them.
        size: height and width to which image files are scaled: the shorter side to 256/224 of it, and the centre is cut
            out. None leaves them as they are.
        count: the number of images that are drawn at random; all if None, or if there are fewer.
        seed: of that draw.

    Raises:
        UserError: there are no images, or they have several sizes or no labels, or a file cannot be read.
    """
    if source.startswith("dataset:"):
        images, labels = _prepared(source.removeprefix("dataset:"), size, count, seed)
    elif source.lower().endswith(".npz"):
        return _npz(as_path(source), bounds, size, count, seed)
    else:
        images, labels = _folder(as_path(source), size, count, seed)
    low, high = bounds
    return (images if bounds == (0.0, 1.0) else images * (high - low) + low), labels


def _chosen(n_images: int, count: int | None, seed: int, what: object) -> Tensor:
    """Returns the indices of the images that are taken, in their order."""
    if count is None or count >= n_images:
        return torch.arange(n_images)
    print(f"note: {count} of the {n_images} images of {what}, drawn at random with seed {seed}", file=sys.stderr)
    order = torch.randperm(n_images, generator=randomness.generator("command line", "images", seed))
    return order[:count].sort().values


def _folder(folder: Path, size: int | None, count: int | None, seed: int) -> tuple[Tensor, Tensor]:
    if not folder.is_dir():
        raise UserError(
            f"--images {folder} is neither a folder, nor an .npz file, nor dataset:<name>; name one of these"
        )
    classes = images_by_class(folder)
    empty = [name for name, names in classes.items() if not names]
    if empty:
        raise UserError(f"{folder / empty[0]} holds no image; add some, or take away this class")
    names = [name for members in classes.values() for name in members]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(each) for each in classes.values()]))
    chosen = _chosen(len(names), count, seed, folder)
    paths = [folder / names[index] for index in chosen.tolist()]
    mode = "L" if all(map(is_grey, paths)) else "RGB"
    return _stacked([_pixels(path, mode, size) for path in paths], paths), labels[chosen]


def _pixels(path: Path, mode: str, size: int | None) -> NDArray[np.uint8]:
    """Returns an image file as uint8 (C, H, W)."""
    # At half of the largest size that Pillow takes, a JPEG decoder leaves nothing out.
    image = read_image(path, mode, size or 1 << 15, thorough=True)
    array = np.asarray(image if size is None else fit(image, size, "crop"), dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _stacked(images: Sequence[NDArray[np.uint8]], paths: Sequence[Path]) -> Tensor:
    for image, path in zip(images, paths, strict=True):
        if image.shape != images[0].shape:
            (height, width), (other_height, other_width) = images[0].shape[1:], image.shape[1:]
            raise UserError(
                f"{paths[0]} has {height}x{width} pixels, and {path} has {other_height}x{other_width}; scale them to"
                " one size by --size"
            )
    return torch.from_numpy(np.stack(images)).float() / 255


def _npz(path: Path, bounds: Bounds, size: int | None, count: int | None, seed: int) -> tuple[Tensor, Tensor]:
    if size is not None:
        raise UserError(f"--size is for image files; the images of {path} are taken as they are, so leave it out")
    images, labels = _arrays(path)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or (len(labels) and int(labels.min()) < 0):
        raise UserError(
            f"{path}: `labels` must be {len(images)} class numbers from 0, one for each image, not {labels.dtype}"
            f" of shape {labels.shape}"
        )
    if not len(images):
        raise UserError(f"{path} holds no image; write some into it")
    chosen = _chosen(len(images), count, seed, path)
    picked = _channels_first(images[chosen.numpy()], path)
    return _scaled(picked, bounds, path), torch.from_numpy(labels.astype(np.int64))[chosen]


def _arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    try:
        check_plain(path)
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            missing = [name for name in ("images", "labels") if name not in names]
            if missing:
                held = ", ".join(names) or "nothing"
                raise UserError(
                    f"{path} has no array `{missing[0]}` but {held}; write it with"
                    " numpy.savez(path, images=..., labels=...)"
                )
            return read_array(archive, "images", _MAX_ARRAY), read_array(archive, "labels", _MAX_ARRAY)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}; name an existing one") from error
    except Exception as error:  # the readers of Python and NumPy fail in many ways on damaged files
        raise UserError(f"{path} cannot be read as an .npz file ({one_line(error)}); write it again") from error


def _channels_first(images: NDArray[Any], path: Path) -> NDArray[Any]:
    """Returns images (N, C, H, W). Raises UserError where the shape leaves open which side is that of the channels."""
    if images.ndim == 3:
        return images[:, None]
    first, last = (images.ndim == 4 and images.shape[side] in (1, 3) for side in (1, 3))
    if images.ndim != 4 or (first and last):
        raise UserError(
            f"{path}: `images` of shape {images.shape} must be (N, C, H, W), (N, H, W, C) with 1 or 3 channels, or"
            " (N, H, W); turn them to one of these"
        )
    return images.transpose(0, 3, 1, 2) if last else images


def _scaled(images: NDArray[Any], bounds: Bounds, path: Path) -> Tensor:
    low, high = bounds
    if images.dtype == np.uint8:
        unit = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
        return unit if bounds == (0.0, 1.0) else unit * (high - low) + low
    if images.dtype.kind != "f":
        raise UserError(f"{path}: `images` are {images.dtype}; store them as uint8, or as float within the bounds")
    least, most = float(images.min()), float(images.max())
    if not (low <= least and most <= high):  # NaN is outside, too
        raise UserError(
            f"{path}: `images` have values from {least:g} to {most:g}, outside of {low:g} to {high:g}; scale them, or"
            " state their range by --bounds"
        )
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _prepared(name: str, size: int | None, count: int | None, seed: int) -> tuple[Tensor, Tensor]:
    path = as_path(name)
    if re.fullmatch(r"\w+", name):
        plugins.check("dataset", name)
        path = Path(_PREPARED.format(name=name))
    if not path.is_file():
        advice = (
            f"make it with `snakemake {path}` in the clone" if path.name == "prepared.safetensors" else "name another"
        )
        raise UserError(f"there is no prepared dataset {path} here; {advice}")
    subset = load_prepared(path, "test", inputs=InputSettings(size=size, resize="crop"))
    if subset.multi_label:
        raise UserError(f"{path} has images with several labels; audits are for one label each, so name another")
    chosen = _chosen(len(subset.labels), count, seed, path)
    images = [part for part, _ in subset.batches(list(chosen.split(256)))]
    return torch.cat(images), subset.labels[chosen]
