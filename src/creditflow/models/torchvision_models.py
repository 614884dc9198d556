"""Backbones whose definition and ImageNet weights come from torchvision."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from torch import Tensor, nn

from creditflow.core.errors import UserError, one_line


@dataclass(frozen=True)
class TorchvisionModel:
    """A network of torchvision without its last layer, in whose place a model has its head.

    Attributes:
        constructor: name of the function in `torchvision.models`.
        weights: name of its enum of weights in `torchvision.models`.
        head: name of the last layer within the network.
        smallest: smallest height and width of images, in pixels; with less, a pooling layer would have nothing left.
    """

    constructor: str
    weights: str
    head: str
    smallest: int

    def build(self, image_shape: tuple[int, int, int]) -> tuple[nn.Module, int]:
        """Returns the network up to its features, and their number. Raises UserError for images that it cannot take."""
        channels, height, width = image_shape
        if channels != 3:
            raise UserError(
                f"backbone {self.constructor} takes images of three channels, not {channels}; set input.channels: 3"
            )
        if min(height, width) < self.smallest:
            size = self.smallest
            raise UserError(
                f"backbone {self.constructor} takes images of at least {size}x{size},"
                f" not {height}x{width}; set input.size"
            )
        network: nn.Module = getattr(_torchvision().models, self.constructor)(weights=None)
        parent, _, name = self.head.rpartition(".")
        last = network.get_submodule(self.head)
        assert isinstance(last, nn.Linear)
        setattr(network.get_submodule(parent), name, nn.Identity())
        return network, last.in_features

    def weights_address(self, name: str) -> str:
        """Returns the address of the weights called `name`. Raises UserError if there are no weights of this name."""
        return str(self._weights(name).url)

    def file_name(self, name: str) -> str:
        """Returns the name of the file of the weights called `name`. Raises UserError as `weights_address` does."""
        return PurePosixPath(urlsplit(self.weights_address(name)).path).name

    def normalisation(self, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of each channel with which the weights called `name` were trained.

        They are for pixels in [0, 1].
        """
        transforms = self._weights(name).transforms()
        return tuple(transforms.mean), tuple(transforms.std)

    def split(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Splits a published state into the state of the backbone and that of the head.

        Raises UserError if it has no such head.
        """
        head = {
            key.removeprefix(f"{self.head}."): tensor
            for key, tensor in tensors.items()
            if key.startswith(f"{self.head}.")
        }
        if set(head) != {"weight", "bias"} or head["weight"].dim() != 2:
            raise UserError(
                f"the weights are not those of {self.constructor}: they have no layer {self.head};"
                " give the file that torchvision publishes"
            )
        rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{self.head}.")}
        return rest, head

    def _weights(self, name: str) -> Any:
        enum = getattr(_torchvision().models, self.weights)
        if name not in enum.__members__:
            raise UserError(
                f"{self.constructor} has no weights {name!r}; torchvision has {', '.join(enum.__members__)}"
            )
        return enum[name]


def load_into(module: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Loads a state into a module. Raises UserError if it does not fit; `what` names the state in the message."""
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{what} do not fit this network ({one_line(error)[:200]}); they are another architecture's"
        ) from error


def _torchvision() -> Any:
    from creditflow.compute.torchvision_import import torchvision

    return torchvision
