"""Backbones of our own whose ImageNet weights a Python package carries."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.data.python_packages import PythonPackage

#: What the weights are called in experiments, as torchvision calls its first ones.
_WEIGHTS = "IMAGENET1K_V1"


@dataclass(frozen=True)
class PackagedModel:
    """Where the published weights of a backbone lie, and how their tensors are called in the backbone.

    Attributes:
        backbone: id of the backbone.
        package: the package that carries the file.
        path: path of the file in it, with slashes; a state dict that torch.save wrote.
        sha256: the whole SHA-256 of the file.
        mean, std: of each channel, with which the weights were trained, for pixels in [0, 1].
        head: name of the last layer in the file.
        names: regular expressions of the file's names, and what stands in their place in the backbone.
    """

    backbone: str
    package: PythonPackage
    path: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    head: str
    names: tuple[tuple[str, str], ...]

    def file_name(self, weights: str) -> str:
        """Returns the name of the file of these weights. Raises UserError if there are no weights of this name."""
        if weights != _WEIGHTS:
            raise UserError(f"{self.backbone} has no weights {weights!r}; the package {self.package} has {_WEIGHTS}")
        return PurePosixPath(self.path).name

    def deliver(self, target: Path) -> str:
        """Writes the file to `target`, verified, and returns where it is from.

        Raises NotAvailableError if the package is neither installed nor can be downloaded, or has another file.
        """
        return self.package.deliver(self.path, self.sha256, target)

    def normalisation(self, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and deviation of each channel, for pixels in [0, 1]. Raises UserError as `file_name` does."""
        self.file_name(weights)
        return self.mean, self.std

    def split(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Splits the file's state into the state of the backbone and that of the head.

        Raises UserError if it has no such head.
        """
        prefix = f"{self.head}."
        head = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        if set(head) != {"weight", "bias"} or head["weight"].dim() != 2:
            raise UserError(
                f"the weights are not those of {self.backbone}: they have no layer {self.head};"
                f" give the file that the package {self.package} has"
            )
        return {self._renamed(key): tensor for key, tensor in tensors.items() if not key.startswith(prefix)}, head

    def _renamed(self, name: str) -> str:
        for pattern, ours in self.names:
            name = re.sub(pattern, ours, name)
        return name
