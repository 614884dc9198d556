"""The handwritten digits of scikit-learn, which need no download, and the training of a network on them."""

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

#: Images that networks are tested on; the other 1,297 are for training.
TEST_IMAGES = 500


@dataclass(frozen=True)
class Digits:
    """Images of digits (N, C, H, W), float32 in [0, 1], and their labels (N,): for training, and for testing."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def digits(size: int = 8, channels: int = 1) -> Digits:
    """Returns the digits, resized from 8x8 to size x size pixels; the split is always the same."""
    data = load_digits()
    labels = torch.from_numpy(data.target).long()
    images = torch.from_numpy(data.images).float()[:, None] / 16
    if size != images.shape[-1]:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False).clamp(0, 1)
    images = images.expand(-1, channels, -1, -1).contiguous()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    return Digits(images[train], labels[train], images[test], labels[test])


def train(model: nn.Module, data: Digits, *, epochs: int, seed: int, rate: float = 1e-3, batch: int = 32) -> nn.Module:
    """Trains the model in place, with Adam on the cross-entropy, whatever its backward pass; returns it in eval mode.

    The learning rate falls to zero along a cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(data.labels), generator=generator).split(batch):
            if len(part) < batch:
                continue  # batch normalisation needs more than one image
            F.cross_entropy(model(data.images[part]), data.labels[part]).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Returns the share of images (N, C, H, W) that the model assigns to their labels (N,)."""
    right = [model(some).argmax(1) == truth for some, truth in zip(images.split(100), labels.split(100), strict=True)]
    return float(torch.cat(right).double().mean())
