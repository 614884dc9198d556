"""Whole networks of torchvision by name, with as many outputs as are asked for, or with published weights."""

import http.client
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from creditflow.compute import randomness
from creditflow.core.errors import UserError, one_line, suggestion
from creditflow.core.factory import ModelSource
from creditflow.data.downloads import NotAvailableError, open_address, pieces
from creditflow.models.build import Normalize
from creditflow.models.weights import check_sha256, load_weights, without_wrapper

#: The most bytes of a file of weights; torchvision's largest has 2.6 GB.
_MAX_WEIGHTS = 8 << 30


def torchvision_network(source: ModelSource, state: Mapping[str, Tensor] | None, path: Path | None) -> nn.Module:
    """Returns a classifier of torchvision.

    Args:
        source: its name, and the number of outputs or the published weights if the text says them. Published weights
            bring the normalisation that torchvision states for them; they come from torch's cache or the network.
        state: tensors by name that will be loaded into it; it then has as many outputs as they are for.
        path: the file that they are from, for messages.

    Raises UserError for an unknown name, or published weights that do not exist or cannot be fetched.
    """
    models = _models()
    names = models.list_models(module=models)
    if source.place not in names:
        raise UserError(f"torchvision has no classifier {source.place!r}{suggestion(source.place, names)}")

    def build(**options: Any) -> nn.Module:
        with randomness.global_seed("factory"):
            network: nn.Module = models.get_model(source.place, weights=None, **options)
        return network

    if source.weights is not None:
        return _published(build, source)
    n_classes = source.n_classes
    if n_classes is None and state is not None and path is not None:
        n_classes = _n_outputs(build, state, path)
    return build() if n_classes is None else build(num_classes=n_classes)


def _n_outputs(build: Callable[..., nn.Module], state: Mapping[str, Tensor], path: Path) -> int | None:
    """Returns the number of outputs that weights are for; None if they do not have the last layer.

    The last layer is what differs between two networks with different numbers of outputs.
    """
    with torch.device("meta"):  # shapes alone
        seven, eight = build(num_classes=7).state_dict(), build(num_classes=8).state_dict()
    last = [name for name, tensor in seven.items() if tensor.shape != eight[name].shape][-1]
    tensors = without_wrapper(state, seven, path)
    return len(tensors[last]) if last in tensors and tensors[last].dim() > 0 else None


def _published(build: Callable[..., nn.Module], source: ModelSource) -> nn.Module:
    """Returns a network with published weights, for pixels in [0, 1]."""
    enum = _models().get_model_weights(source.place)
    names = list(enum.__members__)
    if source.weights not in names:
        raise UserError(
            f"torchvision:{source.place} has no weights {source.weights!r}; choose from: {', '.join(names)}"
        )
    weights, network = enum[source.weights], build()
    load_weights(network, _fetched(weights.url), sha256=_digits(weights.url))
    transforms = weights.transforms()
    return nn.Sequential(Normalize(tuple(transforms.mean), tuple(transforms.std)), network)


def _fetched(address: str) -> Path:
    """Returns the file of an address in torch's cache, after a download if it is not there."""
    name = PurePosixPath(urlsplit(address).path).name
    path = Path(torch.hub.get_dir(), "checkpoints", name)
    if not path.exists():
        part = path.with_name(f".{name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open_address(address) as response, part.open("wb") as file:
                file.writelines(pieces(response.read, _MAX_WEIGHTS, address))
            if digits := _digits(address):
                check_sha256(part, digits)
            part.replace(path)
        except (NotAvailableError, OSError, http.client.HTTPException) as error:
            raise UserError(
                f"{address} cannot be fetched ({one_line(error)}); put the file into {path.parent}, or give the weights"
                " as a file"
            ) from error
        finally:
            part.unlink(missing_ok=True)
    return path


def _digits(address: str) -> str | None:
    """Returns the first digits of the SHA-256 of a file, which are in its name; None if there are none."""
    digits = re.search(r"-([0-9a-f]{8,64})\.pth$", address)
    return digits.group(1) if digits else None


def _models() -> Any:
    from creditflow.compute.torchvision_import import torchvision

    return torchvision.models
