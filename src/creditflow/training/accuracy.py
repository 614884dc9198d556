"""Clean accuracy."""

import torch
from torch import Tensor, nn

from creditflow.data.prepared import Subset, to_unit_interval


@torch.no_grad()
def correct_predictions(model: nn.Module, data: Subset, batch_size: int = 1000) -> Tensor:
    """Returns a bool (N,) tensor on the CPU: is the largest logit the label's?

    The model is put in eval mode for this and gets its mode back.
    """
    was_training = model.training
    model.eval()
    correct = [
        model(to_unit_interval(images)).argmax(1) == labels
        for images, labels in zip(data.images.split(batch_size), data.labels.split(batch_size), strict=True)
    ]
    model.train(was_training)
    return torch.cat(correct).cpu()
