"""DDTP-RHL: direct feedback through a random hidden layer that all layers share (Meulemans et al., 2020).

With h(y) = tanh(R y + r), R and r fixed, g_i(y) = tanh(Q_i h(y) + c_i) for all hidden layers but the last, whose g is tanh(Q y + c) of the
output itself. Targets and loss are differences as in DTPDRL.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters, Pass, tanh, tanh_change, uniform
from creditflow.populations.rule import Batch
from creditflow.populations.rules import _targets
from creditflow.populations.rules._targets import (
    Clean,
    corruptions,
    hidden_layers,
    pushed,
    reconstruction,
    target_rule,
    unless_tanh,
    xavier_normal,
)


@dataclass(frozen=True)
class Settings(_targets.Settings):
    """width: units of the random hidden layer. recurrent: whether g_i sees the clean h_i beside it, as the supplement's variant does."""

    width: int = 1024
    recurrent: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise ValueError(f"width must be at least 1, not {self.width}")


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws R (width, C) and r from U(+-1 / sqrt(C)), torch.nn.Linear's own; Q_i Xavier normal, c_i = 0."""
    n_classes = network.widths[-1]
    bound = 1 / math.sqrt(n_classes)
    state = {
        "r": uniform((settings.width, n_classes), bound, generator),
        "r_bias": uniform((settings.width,), bound, generator),
    }
    for layer in hidden_layers(network):
        n = network.widths[layer]
        n_in = n_classes if layer == network.n_layers - 1 else settings.width + n * settings.recurrent
        state |= {f"q{layer}": xavier_normal((n, n_in), generator), f"c{layer}": torch.zeros(n, dtype=torch.float64)}
    return state


def signals(network: Network, feedback: Parameters, found: Pass) -> dict[int, Tensor]:
    """Returns g_i (B, n_i) at the clean logits, and as layer 0 the random layer's h (B, width)."""
    down = {0: tanh(found.logits @ feedback["r"].T + feedback["r_bias"])}
    for layer in hidden_layers(network):
        q = feedback[f"q{layer}"]
        down[layer] = tanh(_source(network, found, down[0], layer, q.shape[1]) @ q.T + feedback[f"c{layer}"])
    return down


def _source(network: Network, found: Pass, h: Tensor, layer: int, width: int) -> Tensor:
    """Returns what g_i sees (B, width): the last hidden layer's the logits, others' h, or h and h_i where it is as wide."""
    if layer == network.n_layers - 1:
        return found.logits
    return h if width == h.shape[1] else torch.cat([h, found.hidden[layer - 1]], 1)


def _moved(clean: Clean, logits: Tensor) -> Tensor:
    """Returns by how much h moves when the logits do."""
    return tanh_change(clean.down[0], logits @ clean.feedback["r"].T)


def _sent(clean: Clean, moved: Tensor, layer: int) -> Tensor:
    """Returns by how much g_i moves (B, n_i) when the logits or h do, its clean h_i being what it is."""
    return tanh_change(clean.down[layer], moved @ clean.feedback[f"q{layer}"][:, : moved.shape[1]].T)


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns the differences of the targets."""
    last = clean.network.n_layers - 1
    moved = _moved(clean, output) if last > 1 else output
    return {layer: _sent(clean, output if layer == last else moved, layer) for layer in hidden_layers(clean.network)}


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses by Q_i and c_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, logits) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        moved = logits if layer == clean.network.n_layers - 1 else _moved(clean, logits)
        through, less = reconstruction(clean.down[layer], _sent(clean, moved, layer), noise, settings.sigma)
        width = clean.feedback[f"q{layer}"].shape[1]
        source = _source(clean.network, clean.found, clean.down[0], layer, width)
        padded = torch.nn.functional.pad(moved, (0, width - moved.shape[1]))
        directions |= {f"q{layer}": through.T @ padded + less.T @ source, f"c{layer}": less.sum(0)}
    return directions


RULE = target_rule(
    "DDTP-RHL",
    Settings,
    init,
    targets,
    learn,
    signals,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
