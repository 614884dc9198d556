"""Published weights: a state dict that is verified by its hash and read without unpickling."""

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

#: torchvision's files carry the first digits of their SHA-256 in their name.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")


def torchvision_model(backbone: str) -> TorchvisionModel:
    """Returns a backbone's torchvision counterpart. Raises UserError if it has none."""
    model = getattr(plugins.load("backbone", backbone), "TORCHVISION", None)
    if not isinstance(model, TorchvisionModel):
        raise UserError(
            f"backbone {backbone!r} is not torchvision's, so there are no published weights for it; pretrain it"
        )
    return model


def published_digits(backbone: str, weights: str) -> str:
    """Returns the first digits of the SHA-256 that torchvision states for its file of these weights."""
    found = _HASH_IN_NAME.search(urlsplit(torchvision_model(backbone).weights_address(weights)).path)
    assert found is not None
    return found.group(1)


def verify(path: Path, expected: str | None, published: Callable[[], str] | None = None) -> str:
    """Returns a file's SHA-256.

    Raises UserError if it does not begin with `expected`; without that, with the digits in the file's name, or else those `published`.
    """
    in_name = _HASH_IN_NAME.search(path.name)
    wanted = expected or (in_name.group(1) if in_name else published() if published else None)
    if wanted is None:
        raise UserError(f"{path}: give its sha256 (8 hexadecimal digits or more), as its name has none")
    if not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
        raise UserError(f"{path}: sha256 {wanted!r} is not 8 to 64 hexadecimal digits in lower case")
    found = files.file_sha256(path)
    if not found.startswith(wanted):
        raise UserError(
            f"{path} is truncated, corrupt or another file: its SHA-256 begins with {found[:8]}, not {wanted[:8]}; replace it"
        )
    return found


def fetch_weights(backbone: str, weights: str, search_paths: Sequence[Path], target: Path) -> str:
    """Puts torchvision's file of these weights at `target`, verified, and returns where it is from.

    Raises UserError if the backbone has no such weights, a file in a search path is damaged, or there is no way to them.
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
            f"{backbone}: {address} cannot be fetched ({one_line(error)}); put {PurePosixPath(urlsplit(address).path).name} into a folder"
            " and name it in data.search_paths of config/config.yaml"
        ) from error


def import_state(backbone: str, path: Path, weights: str, size: int) -> ImageClassifier:
    """Returns torchvision's network as a model for square images of this size, the published head included.

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
        # torch's own message tells how to read it unsafely.
        raise UserError(
            f"{path} cannot be read as a state dict of tensors and nothing else; give the file that torchvision publishes"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} is not a state dict (names and tensors)")
    return dict(state)
