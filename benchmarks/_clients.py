"""Networks for the digits from libraries that people use, each built and trained as its users would build it.

A library is imported only where its network is built, so that one that is missing costs its own rows only.
"""

import contextlib
import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.ao import quantization

from creditflow.compute.torchvision_import import torchvision

CLASSES = 10


@dataclass(frozen=True)
class Client:
    """A network of a library.

    Attributes:
        library: name of its distribution.
        model: the model in words.
        build: returns the network from a random start.
        expected: the verdict that follows from how the library computes gradients.
        epochs: how long the network is trained.
    """

    library: str
    model: str
    build: Callable[[], nn.Module]
    expected: str = "honest"
    epochs: int = 20


def convolutional(conv: Any = nn.Conv2d, relu: Any = nn.ReLU, linear: Any = nn.Linear) -> nn.Sequential:
    """A small network for images of 8x8 pixels, from layers of any library that have the interfaces of torch.nn."""
    return nn.Sequential(
        conv(1, 16, 3, padding=1),
        relu(),
        nn.MaxPool2d(2),
        conv(16, 32, 3, padding=1),
        relu(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        linear(128, 64),
        relu(),
        linear(64, CLASSES),
    )


class ErrorOfTheOutput(nn.Module):
    """BioTorch's DFA outside its own training loop: it gives the layers the gradient at the output, which they use.

    Its training loop does so with the loss of the training batch. An attack has a loss of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        if logits.requires_grad:
            logits.register_hook(self._give)
        return logits

    def _give(self, gradient: Tensor) -> None:
        for layer in self.network.modules():
            layer.loss_gradient = gradient


def biotorch(mode: str, network: nn.Module | None = None) -> nn.Module:
    """Returns a network, by default the small one, converted by BioTorch; its weights stay those of the network."""
    from biotorch.module.biomodule import BioModule

    network = convolutional() if network is None else copy.deepcopy(network)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it converts
        module: nn.Module = BioModule(network, mode=mode, output_dim=CLASSES)
    if mode == "dfa":
        converted: nn.Module = module.module
        return ErrorOfTheOutput(converted)
    return module


class Spiking(nn.Module):
    """A spiking network: the image is a current at every step, and the potentials at the output are averaged."""

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        import snntorch

        self.steps = steps
        self.conv, self.pool = nn.Conv2d(1, 16, 3, padding=1), nn.AvgPool2d(2)
        self.hidden, self.readout = nn.Linear(256, 64), nn.Linear(64, CLASSES)
        spike = snntorch.surrogate.fast_sigmoid(slope=25)
        self.first, self.second = (snntorch.Leaky(beta=0.9, spike_grad=spike) for _ in range(2))
        self.last = snntorch.Leaky(beta=0.9, reset_mechanism="none", spike_grad=spike)

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = (neuron.init_leaky() for neuron in (self.first, self.second, self.last))
        current, potentials = self.pool(self.conv(x)).flatten(1), []
        for _ in range(self.steps):
            spikes, first = self.first(current, first)
            spikes, second = self.second(self.hidden(spikes), second)
            _, last = self.last(self.readout(spikes), last)
            potentials.append(last)
        return torch.stack(potentials).mean(0)


def brevitas(weight_bits: int, activation_bits: int | None) -> nn.Module:
    """The small network with quantised weights and, unless `activation_bits` is None, quantised activations."""
    from brevitas import nn as qnn

    def conv(*shape: int, padding: int) -> nn.Module:
        layer: nn.Module = qnn.QuantConv2d(*shape, padding=padding, weight_bit_width=weight_bits)
        return layer

    def linear(*shape: int) -> nn.Module:
        layer: nn.Module = qnn.QuantLinear(*shape, bias=True, weight_bit_width=weight_bits)
        return layer

    def relu() -> nn.Module:
        if activation_bits is None:
            return nn.ReLU()
        layer: nn.Module = qnn.QuantReLU(bit_width=activation_bits)
        return layer

    return convolutional(conv, relu, linear)


class TorchQuantised(nn.Module):
    """The small network prepared by torch.ao for training with 8 bits; ranges are observed in training only."""

    def __init__(self) -> None:
        super().__init__()
        network = nn.Sequential(quantization.QuantStub(), *convolutional(), quantization.DeQuantStub())
        network.qconfig = quantization.get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        self.network = quantization.prepare_qat(network.train())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x)
        return logits

    def train(self, mode: bool = True) -> Self:
        self.apply(quantization.enable_observer if mode else quantization.disable_observer)
        return super().train(mode)


def torchvision_shufflenet() -> nn.Module:
    network = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=CLASSES)
    network.conv1[0] = nn.Conv2d(1, 24, 3, stride=2, padding=1, bias=False)
    return enlarged(network)


def timm(name: str) -> nn.Module:
    import timm as library

    sized = {"img_size": 32} if "vit" in name else {}
    return enlarged(library.create_model(name, in_chans=1, num_classes=CLASSES, **sized))


def enlarged(network: nn.Module) -> nn.Module:
    """Returns a network for 32x32 images behind an enlargement of 8x8 ones, so that all clients see the same images."""
    return nn.Sequential(nn.Upsample(size=(32, 32), mode="bilinear"), network)


#: The verdict on a network whose steps and roundings have a derivative of zero almost everywhere.
NONE = "no useful gradient"

BIOTORCH_MODES = ("fa", "frsf", "brsf", "usf", "dfa")

CLIENTS = [
    Client("torch", "small CNN", convolutional),
    Client("torchvision", "shufflenet_v2_x0_5", torchvision_shufflenet, epochs=15),
    Client("timm", "test_resnet", lambda: timm("test_resnet"), epochs=4),
    Client("timm", "test_vit", lambda: timm("test_vit"), epochs=6),
    *(
        Client("biotorch", f"small CNN, {mode}", lambda mode=mode: biotorch(mode), "surrogate")
        for mode in BIOTORCH_MODES
    ),
    Client("biotorch", "small CNN, backpropagation", lambda: biotorch("backpropagation")),
    Client("snntorch", "spiking CNN, fast sigmoid", Spiking, NONE),
    Client("brevitas", "small CNN, weights of 4 bits", lambda: brevitas(4, None)),
    Client("brevitas", "small CNN, weights and activations of 4 bits", lambda: brevitas(4, 4), NONE),
    Client("torch", "small CNN, torch.ao QAT of 8 bits", TorchQuantised, NONE),
]
