"""Clean accuracy."""

import torch
from torch import Tensor, nn

from creditflow.data.labels import is_correct
from creditflow.data.prepared import Subset


@torch.no_grad()
def correct_predictions(model: nn.Module, data: Subset) -> Tensor:
    """Returns bool (N,) on the CPU: for each image, whether the largest logit is that of one of its labels.

    The model is measured in eval mode and is afterwards in the mode that it was in before.
    """
    was_training = model.training
    model.eval()
    correct = [is_correct(model(images), labels) for images, labels in data.batches(data.in_order())]
    model.train(was_training)
    return torch.cat(correct).cpu()
