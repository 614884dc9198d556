"""How many images a network is shown at once, where the user does not say it."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError, one_line
from creditflow.core.files import warn
from creditflow.derivatives.frozen import frozen

#: Bytes of activations that a batch may have on a CPU, where smaller ones stay in the cache, and the share of a GPU's
#: free memory that it may have.
_CPU_BYTES = 256 << 20
_GPU_SHARE = 0.25

_LEAST, _MOST = 8, 512

Result = TypeVar("Result")


def fitting_batch(network: nn.Module, images: Tensor, device: torch.device) -> int:
    """Returns a batch size, a power of two, by the size of the network's activations for one image.

    `images` are (N, C, H, W); only the first one is used. The size depends on network, images and machine alone, so
    that the same call gives the same result again.
    """
    size = _activation_bytes(network, images[:1].to(device))
    if device.type == "cuda":
        limit = _GPU_SHARE * torch.cuda.get_device_properties(device).total_memory
    else:
        limit = float(_CPU_BYTES)
    fitting = max(_LEAST, min(_MOST, int(limit / max(size, 1))))
    return 1 << (fitting.bit_length() - 1)


@torch.no_grad()
def _activation_bytes(network: nn.Module, image: Tensor) -> int:
    """Returns the bytes of all outputs of the network's innermost modules for one image, and of the image."""
    sizes = [image.numel() * image.element_size()]

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.numel() * output.element_size())

    # Compiled modules (TorchScript) take no hooks.
    modules = [module for module in network.modules() if not isinstance(module, torch.jit.ScriptModule)]
    leaves = [module for module in modules if not any(True for _ in module.children())]
    hooks = [module.register_forward_hook(note) for module in leaves]
    try:
        with frozen(network):
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


def with_less_memory(work: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
    """Calls `work(batch_size)`, with half of it again while memory runs out. Returns the result and the batch size.

    Raises UserError if memory runs out for a single image.
    """
    while True:
        try:
            return work(batch_size), batch_size
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            if batch_size == 1:
                raise UserError(f"memory does not suffice for one image ({one_line(error)[:120]})") from error
        batch_size = max(1, batch_size // 2)
        warn(f"memory ran out, so that the audit goes on with batches of {batch_size} images")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _lacks_memory(error: Exception) -> bool:
    texts = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)
