"""Clean accuracy."""

import torch
from torch import Tensor, nn

from creditflow.data.labels import is_correct
from creditflow.data.prepared import Subset


@torch.no_grad()
def correct_predictions(model: nn.Module, data: Subset) -> Tensor:
    """Returns a bool (N,) tensor on the CPU: is the largest logit that of a label?

    The model is put in eval mode for this and gets its mode back.
    """
    was_training = model.training
    model.eval()
    correct = [is_correct(model(images), labels) for images, labels in data.batches(data.in_order())]
    model.train(was_training)
    return torch.cat(correct).cpu()
