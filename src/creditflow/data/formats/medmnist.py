"""MedMNIST's archives (Yang et al., 2023): NumPy's .npz with images and labels of three splits."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import check_plain
from creditflow.data.formats.npz import read_array

#: The host of version 3.0, where each file has an address of its own.
ADDRESS = "https://zenodo.org/records/10519652/files"
#: The most bytes of one array; PathMNIST's largest has 212 MB.
_MAX_ARRAY = 512 << 20


def read_medmnist(
    path: Path, image_shape: tuple[int, ...], n_columns: int
) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Returns images uint8 (N, C, H, W) and labels int64 (N, columns) of the training and the test split.

    `image_shape` is the shape of one stored image, (28, 28) or (28, 28, 3). The validation split is left out.
    Raises UserError if the file is damaged or holds something else.
    """
    try:
        check_plain(path)
        with zipfile.ZipFile(path) as archive:
            splits = {
                split: (
                    read_array(archive, f"{split}_images", _MAX_ARRAY),
                    read_array(archive, f"{split}_labels", _MAX_ARRAY),
                )
                for split in ("train", "test")
            }
    except Exception as error:  # the readers of Python and NumPy fail in many ways on damaged files
        raise UserError(
            f"{path} is truncated or corrupt, or lacks a split ({one_line(error)}); get it again"
        ) from error
    for split, (images, labels) in splits.items():
        right = images.dtype == np.uint8 and images.shape[1:] == image_shape and labels.dtype.kind in "iu"
        if not right or labels.shape != (len(images), n_columns):
            raise UserError(
                f"{path}: {split} images of shape {images.shape} and labels of shape {labels.shape} are not MedMNIST's;"
                " fetch it again"
            )
    return {split: (_channels_first(images), labels.astype(np.int64)) for split, (images, labels) in splits.items()}


def _channels_first(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(images[:, np.newaxis] if images.ndim == 3 else images.transpose(0, 3, 1, 2))
