"""A network of the user's own, made by a factory, without its last layer, in whose place a model has its head.

Such a network brings its normalisation along: it takes pixels in [0, 1].
"""

import torch
from torch import nn

from creditflow.core.errors import UserError
from creditflow.core.factory import parse_source
from creditflow.models.factories import make_model
from creditflow.models.local_weights import factory_hash, last_linear


def build(
    image_shape: tuple[int, int, int], factory: str = "", factory_sha256: str | None = None
) -> tuple[nn.Module, int]:
    """Returns the network up to the inputs of its last Linear, and their number.

    Args:
        image_shape: (channels, height, width); the network itself says which it takes.
        factory: what makes the network: a function, or a network of torchvision.
        factory_sha256: SHA-256 of the function's file when the weights were taken over; None for what is in no file.

    Raises:
        UserError: there is no factory, it has changed since, it makes no network, or the network has no Linear.
    """
    if not factory:
        raise UserError("backbone from_factory needs a factory; give pretrain.files.from_factory.factory")
    if parse_source(factory).kind not in ("file", "module", "torchvision"):
        raise UserError(f"{factory!r} is no function; give file.py:function, or torchvision:resnet18")
    if factory_hash(factory) != factory_sha256:
        raise UserError(f"{factory} has changed since its weights were taken over; import them again, or put it back")
    with torch.device("cpu"):  # who loads a model lets it begin on the device meta, where a factory's numbers are lost
        network = make_model(factory)
    name, last = last_linear(network, factory)
    parent, _, attribute = name.rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return network, last.in_features
