"""Which parts of a network behave as in training: batch normalisation may be frozen, and so may all below the head."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from creditflow.core.errors import UserError
from creditflow.core.matched import HEAD_ONLY
from creditflow.training.settings import TrainingSettings


def set_training_mode(view: nn.Module, rule: str, settings: TrainingSettings) -> None:
    """Puts a network, or a view of one, into training mode, but for what its training leaves frozen.

    With `batch_norm: frozen`, layers of batch normalisation stay in evaluation mode: they normalise with the running
    statistics of the start, which do not change. Their factors and offsets are trained all the same. Where only the
    head is trained, all below it stays in evaluation mode.

    Raises UserError for `batch_norm: frozen` in a network without batch normalisation.
    """
    view.train()
    for name, module in view.named_children():
        if rule == HEAD_ONLY and name != "head":
            module.eval()
    if settings.batch_norm == "frozen":
        layers = [module for module in view.modules() if isinstance(module, _BatchNorm)]
        if not layers:
            raise UserError("batch_norm: frozen has no effect, as the network has no batch normalisation; leave it out")
        for layer in layers:
            layer.eval()
