"""Hash codes: the signs of a network's outputs."""

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.data.prepared import Subset


def hash_codes(outputs: Tensor) -> Tensor:
    """Returns int8 codes (N, K) in {-1, +1} of outputs (N, K). Zero counts as positive: every bit is decided."""
    return torch.where(outputs >= 0, 1, -1).to(torch.int8)


@torch.no_grad()
def encode(model: nn.Module, data: Subset) -> Tensor:
    """Returns the codes int8 (N, K) of all images, on the CPU, in their order.

    The model runs in eval mode and gets its mode back. Raises UserError if an output is not finite, or if all outputs
    are zero: such a network has collapsed, and its codes say nothing.
    """
    was_training = model.training
    model.eval()
    codes, alive = [], False
    for images, _ in data.batches(data.in_order()):
        outputs = model(images)
        if not bool(outputs.isfinite().all()):
            raise UserError(
                "the network gives outputs that are not finite; its training diverged: lower the learning rate"
            )
        alive = alive or bool((outputs != 0).any())
        codes.append(hash_codes(outputs).cpu())
    model.train(was_training)
    if not alive:
        raise UserError(
            "all outputs of the hash layer are zero, so that all codes are the same;"
            " train the network with other settings"
        )
    return torch.cat(codes)
