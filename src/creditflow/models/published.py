"""Published weights of torchvision: files that are verified by their hash and read without unpickling."""

import http.client
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from torch import Tensor

from creditflow.core import files, plugins
from creditflow.core.errors import UserError, one_line
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.models.torchvision_models import TorchvisionModel, load_into

#: The names of torchvision's files contain the first digits of their SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")


def torchvision_model(backbone: str) -> TorchvisionModel:
    """Returns the network of torchvision that a backbone is. Raises UserError if the backbone is another one."""
    model = getattr(plugins.load("backbone", backbone), "TORCHVISION", None)
    if not isinstance(model, TorchvisionModel):
        raise UserError(
            f"backbone {backbone!r} is not torchvision's, so there are no published weights for it; pretrain it"
        )
    return model


def published_digits(backbone: str, weights: str) -> str:
    """Returns the first hexadecimal digits of the SHA-256 that torchvision states for the file of these weights."""
    digits = _HASH_IN_NAME.search(urlsplit(torchvision_model(backbone).weights_address(weights)).path)
    assert digits is not None
    return digits.group(1)


def verify(path: Path, expected: str | None, published: Callable[[], str] | None = None) -> str:
    """Returns the SHA-256 of a file, after a comparison with the digits that it should begin with.

    Args:
        path: the file.
        expected: the first hexadecimal digits, 8 or more. None means those in the name of the file.
        published: gives the digits if the name has none either.

    Raises:
        UserError: the SHA-256 begins with other digits, or there are no digits to compare with.
    """
    in_name = _HASH_IN_NAME.search(path.name)
    wanted = expected or (in_name.group(1) if in_name else published() if published else None)
    if wanted is None:
        raise UserError(f"{path}: give its sha256 (8 hexadecimal digits or more), as its name has none")
    if not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
        raise UserError(f"{path}: sha256 {wanted!r} is not 8 to 64 hexadecimal digits in lower case")
    digits = files.file_sha256(path)
    if not digits.startswith(wanted):
        raise UserError(
            f"{path} is truncated, corrupt or another file:"
            f" its SHA-256 begins with {digits[:8]}, not {wanted[:8]}; replace it"
        )
    return digits


def fetch_weights(backbone: str, weights: str, search_paths: Sequence[Path], target: Path) -> str:
    """Puts torchvision's file of these weights at `target`, verified, and returns the path or address that it is from.

    Raises UserError if the backbone has no such weights, if a file in a search path is damaged, or if no search path
    has the file and it cannot be downloaded.
    """
    address = torchvision_model(backbone).weights_address(weights)
    name = PurePosixPath(urlsplit(address).path).name
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        local = next((folder / name for folder in search_paths if (folder / name).is_file()), None)
        if local is not None:
            verify(local, None)
            shutil.copyfile(local, part)
        else:
            _download(address, part, published_digits(backbone, weights), backbone)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return str(local or address)


def _download(address: str, part: Path, expected: str, backbone: str) -> None:
    try:
        torch.hub.download_url_to_file(address, str(part), hash_prefix=expected, progress=sys.stderr.isatty())
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        raise UserError(
            f"{backbone}: {address} cannot be fetched ({one_line(error)});"
            f" put {PurePosixPath(urlsplit(address).path).name} into a folder"
            " and name the folder in data.search_paths of config/config.yaml"
        ) from error


def import_state(backbone: str, path: Path, weights: str, size: int) -> ImageClassifier:
    """Returns the network with its published weights, head included, as a model for square images of `size` pixels.

    Raises UserError if the file is no state dict, or that of another architecture.
    """
    published = torchvision_model(backbone)
    rest, head = published.split(_read_state(path))
    mean, std = published.normalisation(weights)
    model = build_model(ModelSpec(backbone, (3, size, size), len(head["bias"]), mean, std), "import")
    load_into(model.backbone, rest, f"{path}: the weights")
    load_into(model.head, head, f"{path}: the weights of the last layer")
    return model.eval()


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        # The message of torch is not passed on: it tells how to read the file unsafely.
        raise UserError(
            f"{path} cannot be read as a state dict of tensors and nothing else;"
            " give the file that torchvision publishes"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} is not a state dict (names and tensors)")
    return dict(state)
