"""Clean accuracy."""

import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.data.labels import is_correct
from creditflow.data.prepared import Subset


@torch.no_grad()
def correct_predictions(model: nn.Module, data: Subset) -> Tensor:
    """Returns bool (N,) on the CPU: for each image, whether the largest logit is that of one of its labels.

    The model is measured in eval mode and is afterwards in the mode that it was in before.

    Raises UserError if an output is not finite: the largest one says nothing then.
    """
    was_training = model.training
    model.eval()
    correct, finite = [], []
    for images, labels in data.batches(data.in_order()):
        outputs = model(images)
        correct.append(is_correct(outputs, labels))
        finite.append(outputs.isfinite().all())  # read at the end: a GPU would have to wait for it in each batch
    model.train(was_training)
    if not bool(torch.stack(finite).all()):
        raise UserError(
            "the model's outputs are not finite (NaN or infinite) at clean images; lower the learning rate and train it"
            " again"
        )
    return torch.cat(correct).cpu()
