"""Somebody's model as attacks need it: from images in [0, 1] to logits in float32."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.core.files import fingerprint
from creditflow.instrument.inputs import Bounds, tensor_sha256

#: What a user states of preprocessing: a function of images within the bounds, or a mean and a standard deviation.
Preprocessing = Callable[[Tensor], Tensor] | Mapping[str, Any] | None


class Normalised(nn.Module):
    """(x - mean) / std for each channel; both are in the units of the bounds."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.reshape(-1, 1, 1))
        self.register_buffer("std", std.reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Returns images (N, C, H, W)."""
        return (x - self.mean) / self.std


class UnitRange(nn.Module):
    """A model that takes images in [0, 1], whatever range and preprocessing the model itself was trained with.

    The model is not changed. It computes in the type of its parameters; logits of half precision become float32.
    """

    def __init__(self, model: nn.Module, bounds: Bounds, preprocess: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model = model
        self.preprocess = preprocess
        self.low, self.span = bounds[0], bounds[1] - bounds[0]

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, K) of images x (N, C, H, W) in [0, 1]."""
        given = x
        if (self.low, self.span) != (0.0, 1.0):
            x = x * self.span + self.low
        if self.preprocess is not None:
            x = self.preprocess(x)
        # Read anew each time: somebody may have changed the type of the parameters.
        types = (tensor.dtype for tensor in self.model.parameters() if tensor.is_floating_point())
        x = x.to(next(types, x.dtype))
        # Somebody's model may write into what it is given, which must not be the caller's images.
        outputs: Tensor = self.model(x.clone() if x is given else x)
        half = isinstance(outputs, Tensor) and outputs.dtype in (torch.float16, torch.bfloat16)
        return outputs.float() if half else outputs


def read_preprocessing(
    stated: Preprocessing, n_channels: int, device: torch.device
) -> nn.Module | Callable[[Tensor], Tensor] | None:
    """Returns what is done with images before the model sees them. Raises UserError for what can't be done."""
    if stated is None or (callable(stated) and not isinstance(stated, Mapping)):
        return stated
    if not isinstance(stated, Mapping) or set(stated) != {"mean", "std"}:
        raise UserError("preprocessing must be a function of images, or {'mean': [...], 'std': [...]}")
    values = {}
    for name, value in stated.items():
        try:
            values[name] = torch.as_tensor(value, dtype=torch.float32).reshape(-1).to(device)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"preprocessing: {name} must be a list of numbers, not {value!r}") from None
        if len(values[name]) not in (1, n_channels) or not bool(values[name].isfinite().all()):
            raise UserError(f"preprocessing: {name} must be {n_channels} numbers, one for each channel, not {value!r}")
    if not bool((values["std"] > 0).all()):
        raise UserError("preprocessing: std must be above 0")
    return Normalised(values["mean"], values["std"])


def preprocessing_facts(preprocess: Any) -> Any:
    """Returns what a record says of the preprocessing: the numbers of a normalisation, or the name of a function."""
    if isinstance(preprocess, Normalised):
        return {name: getattr(preprocess, name).flatten().tolist() for name in ("mean", "std")}
    if preprocess is None:
        return None
    name = kind_of(preprocess) if not hasattr(preprocess, "__qualname__") else preprocess.__qualname__
    return {"function": name, "state": weights_sha256(preprocess) if isinstance(preprocess, nn.Module) else None}


def weights_sha256(model: nn.Module) -> str:
    """Returns a hash of all parameters and buffers, those that are not saved included, by their names."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return fingerprint(sorted((name, tensor_sha256(tensor)) for name, tensor in tensors))


def kind_of(model: Any) -> str:
    """Returns the class of a model with its module, such as `torchvision.models.resnet.ResNet`."""
    return f"{type(model).__module__}.{type(model).__qualname__}"
