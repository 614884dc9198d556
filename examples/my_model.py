"""Two networks for digits: one whose backward pass is not the derivative of its forward pass, and an honest one.

`python examples/my_model.py` trains three seeds of both and writes `weights/<name>_<seed>.pt`; examples/mine.yaml
audits them. Both take pixels in [0, 1] and give logits, as any model here must.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RandomFeedback(torch.autograd.Function):
    """A linear layer that sends the error back through fixed random weights (feedback alignment)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(x, feedback)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, feedback = ctx.saved_tensors
        return error @ feedback, error.T @ x, error.sum(0), None


class AlignedLinear(nn.Linear):
    """`nn.Linear` whose backward pass is that of `RandomFeedback`."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__(n_inputs, n_outputs)
        self.register_buffer("feedback", torch.randn(n_outputs, n_inputs) / n_inputs**0.5)

    def forward(self, x: Tensor) -> Tensor:
        return RandomFeedback.apply(x, self.weight, self.bias, self.feedback)


def make_mine(linear: type[nn.Linear] = AlignedLinear) -> nn.Module:
    """Returns a network of three layers of the class `linear`."""
    return nn.Sequential(nn.Flatten(), linear(64, 128), nn.ReLU(), linear(128, 64), nn.ReLU(), linear(64, 10))


def make_reference() -> nn.Module:
    """Returns the same network with plain layers."""
    return make_mine(nn.Linear)


def train(model: nn.Module, epochs: int = 15) -> nn.Module:
    """Trains a network on the first 1,297 digits; the others are the test images of the dataset `digits`."""
    from sklearn.datasets import load_digits  # here, as every job of an audit imports this file for its networks

    digits = load_digits()
    images, labels = torch.tensor(digits.images[:1297] / 16).float()[:, None], torch.tensor(digits.target[:1297])
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    Path("weights").mkdir(exist_ok=True)
    for name, make in (("mine", make_mine), ("reference", make_reference)):
        for seed in range(3):
            torch.manual_seed(seed)
            torch.save(train(make()).state_dict(), f"weights/{name}_{seed}.pt")
