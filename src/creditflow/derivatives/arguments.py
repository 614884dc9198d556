"""What `check_gradient` takes: each mistake is one line that says what to do."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.derivatives.subject import uncompiled

_DROPOUT = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)


def check_model(model: object) -> nn.Module:
    """Raises UserError if this is no module, or if it is in training mode and that matters."""
    if not isinstance(model, nn.Module):
        raise UserError(f"the model must be a torch.nn.Module, not {type(model).__name__}")
    for name, module in uncompiled(model).named_modules():
        if module.training and _depends_on_mode(module):
            raise UserError(
                f"the model is in training mode, which changes what its {name or 'model'!r} computes"
                f" ({type(module).__name__}): call model.eval() first"
            )
    return model


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return isinstance(module, nn.modules.batchnorm._BatchNorm) or module.track_running_stats
    rate = module.p if isinstance(module, nn.modules.dropout._DropoutNd) else getattr(module, "dropout", 0.0)
    return isinstance(module, _DROPOUT) and rate > 0


def check_images(images: object, model: nn.Module) -> Tensor:
    """Raises UserError if these are no images of numbers, or are on another device than the model."""
    if not isinstance(images, Tensor):
        raise UserError(f"the images must be a torch.Tensor of shape (N, ...), not {type(images).__name__}")
    if not images.is_floating_point():
        raise UserError(f"the images must be floating-point numbers, not {images.dtype}: use images.float() / 255")
    if images.dim() < 2 or images.numel() == 0:
        raise UserError(f"the images must have shape (N, ...) with at least one image, not {list(images.shape)}")
    if not images.isfinite().all():
        raise UserError("the images contain NaN or infinity: leave these images out")
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.device != images.device:
        raise UserError(
            f"the images are on {images.device}, the model is on {parameter.device}:"
            f" use images.to({str(parameter.device)!r})"
        )
    return images.detach()


def check_outputs(outputs: Any, images: Tensor) -> Tensor:
    """Raises UserError if the model does not return finite logits, one row for each image."""
    if not isinstance(outputs, Tensor):
        raise UserError(
            f"the model returns {type(outputs).__name__}, not a tensor:"
            " wrap it in a module whose forward pass returns the logits only"
        )
    if not outputs.is_floating_point():
        raise UserError(f"the model returns {outputs.dtype}, not logits: return the numbers before argmax")
    if outputs.dim() < 2 or len(outputs) != len(images) or outputs.numel() < 2 * len(outputs):
        raise UserError(
            f"the model returns shape {list(outputs.shape)} for {len(images)} images:"
            f" it must return (N, K) logits with K of at least 2, here ({len(images)}, K)"
        )
    if not outputs.isfinite().all():
        raise UserError("the model returns NaN or infinity for these images: check its weights and the range of pixels")
    return outputs


def check_labels(labels: object, images: Tensor, outputs: Tensor, loss: object) -> Tensor | None:
    """Raises UserError if the labels do not fit the images, or for cross-entropy the outputs."""
    if loss is not None and not callable(loss):
        raise UserError(f"the loss must be a function of (outputs, labels), not {type(loss).__name__}")
    if labels is None:
        if loss is not None:
            raise UserError("a loss needs labels: pass labels=")
        return None
    if not isinstance(labels, Tensor) or labels.dim() < 1 or len(labels) != len(images):
        shape = list(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UserError(f"the labels must be a tensor with one label for each of {len(images)} images, not {shape}")
    labels = labels.to(outputs.device)
    if loss is not None:
        return labels
    if outputs.dim() != 2 or labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise UserError(
            "cross-entropy takes integer labels of shape (N,) and logits of shape (N, K),"
            f" not {labels.dtype} of {list(labels.shape)} and {list(outputs.shape)}: pass loss= for others"
        )
    if int(labels.min()) < 0 or int(labels.max()) >= outputs.shape[1]:
        raise UserError(
            f"the labels go from {int(labels.min())} to {int(labels.max())},"
            f" but the model has {outputs.shape[1]} outputs: labels count from 0"
        )
    return labels


def call(function: Callable[[], Any], what: str) -> Any:
    """Calls something of the user's. Raises UserError with one line if it raises."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{what}: {type(error).__name__}: {lines[0]}") from error
