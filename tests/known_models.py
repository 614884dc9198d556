"""Small classifiers of the digits whose truth is known: an honest one, one that lies, one without a derivative."""

from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from lies import Step, StraightThroughSign

N_TRAINED = 1200


@cache
def digits() -> tuple[Tensor, Tensor]:
    """Images (1797, 1, 8, 8) in [0, 1] and labels."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


def attacked(n_images: int) -> tuple[Tensor, Tensor]:
    images, labels = digits()
    return images[N_TRAINED : N_TRAINED + n_images], labels[N_TRAINED : N_TRAINED + n_images]


@cache
def _trained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    images, labels = digits()
    for _ in range(60):
        chosen = torch.randint(0, N_TRAINED, (128,))
        optimiser.zero_grad()
        F.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return model.eval()


def honest(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        return _trained(seed)


class Scaled(nn.Module):
    """A model whose logits are multiplied by a number, which saturates every softmax."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


class _WrongWeight(torch.autograd.Function):
    """A linear layer whose backward pass has another matrix, as in feedback alignment."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, feedback: Tensor) -> Tensor:
        ctx.save_for_backward(feedback)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad @ ctx.saved_tensors[0], None, None


class _Misled(nn.Module):
    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("feedback", torch.randn(layer.weight.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return _WrongWeight.apply(x, self.layer.weight, self.feedback) + self.layer.bias


def lying(seed: int = 0) -> nn.Module:
    """The honest network, whose first layer has a random backward pass."""
    flatten, first, relu, last = honest(seed)
    return nn.Sequential(flatten, _Misled(first), relu, last).eval()


@cache
def spiking() -> nn.Module:
    """A network of signs, with the honest network's first layer and a readout that is fitted to its spikes."""
    flatten, first, _, _ = honest()
    images, labels = digits()
    hidden = nn.Sequential(flatten, first, StraightThroughSign())
    with torch.no_grad():
        spikes = torch.cat([hidden(images[:N_TRAINED]), torch.ones(N_TRAINED, 1)], 1)
        wanted = F.one_hot(labels[:N_TRAINED], 10).float()
        solution = torch.linalg.lstsq(spikes, wanted).solution
        readout = nn.Linear(32, 10)
        readout.weight.copy_(5 * solution[:-1].T)
        readout.bias.copy_(5 * solution[-1])
    return nn.Sequential(hidden, readout).eval()


class BesideSteps(nn.Module):
    """A model whose logits also have step functions of the images, which have no derivative of their own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("weight", 0.3 * torch.randn(64, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + 0.3 * Step.apply(x.flatten(1) @ self.weight)
