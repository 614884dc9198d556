"""Files that hold a whole model: TorchScript, torch.export, and what `save_model` wrote."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from creditflow.core.errors import UserError, one_line
from creditflow.models.storage import load_model


def _torchscript(path: Path) -> nn.Module:
    """Returns the model of a TorchScript file. Raises UserError if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch advises torch.export to whoever writes files
            model: nn.Module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError, OSError, MemoryError) as error:  # a damaged size asks for more than there is
        raise UserError(
            f"{path} is no TorchScript file, which a model without a function must be; if it holds weights, name the"
            " function that makes the network, and this file as its weights"
        ) from error
    return model


class ExportedModel(nn.Module):
    """A model of torch.export. It cannot change between training and evaluation: it does what it did when exported."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def forward(self, images: torch.Tensor) -> Any:
        return self.program(images)

    def train(self, mode: bool = True) -> Self:
        """Leaves the model as it is, as torch refuses this of exported programs."""
        return self


def _exported(path: Path) -> nn.Module:
    """Returns the model of a torch.export file. Raises UserError if it is none, or takes one size of batch only."""
    try:
        program = torch.export.load(path)
        module = program.module()
    except Exception as error:  # torch's reader fails in many ways on damaged files
        raise UserError(
            f"{path} cannot be read as a file of torch.export ({one_line(error)[:200]}); export the model again"
        ) from error
    inputs = program.graph_signature.user_inputs
    shapes: dict[str, tuple[Any, ...]] = {
        node.name: tuple(getattr(node.meta.get("val"), "shape", ())) for node in program.graph.nodes
    }
    if len(inputs) != 1 or not shapes.get(inputs[0]):
        raise UserError(f"{path} takes {len(inputs)} inputs; export a model that takes one tensor of images")
    if isinstance(n_images := shapes[inputs[0]][0], int):
        raise UserError(
            f"{path} takes batches of exactly {n_images} images; export it with"
            " dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)"
        )
    return ExportedModel(module)


#: What reads a file, by the kind of model that the text names.
READERS: Mapping[str, Callable[[Path], nn.Module]] = {
    "torchscript": _torchscript,
    "exported": _exported,
    "saved": load_model,
}
