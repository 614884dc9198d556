"""The mode in which models are attacked and judged."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode, without gradients of its parameters; at the end modes and flags are restored."""
    # A frozen TorchScript has no mode, and an exported program keeps the one in which it was exported.
    modes = {module: module.training for module in model.modules() if hasattr(module, "training")}
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    if any(modes.values()):
        with suppress(NotImplementedError):
            model.eval()
    model.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)
