"""DDTP-RHL: direct feedback through a random hidden layer that all layers share (Meulemans et al., 2020).

The random layer is h(y) = tanh(R y + r), where R and r stay fixed. The feedback is g_i(y) = tanh(Q_i h(y) + c_i) for
all hidden layers but the last. For the last, it is tanh(Q y + c) of the output itself. Targets and loss are
differences, as in DTPDRL.
"""

import math

import torch
from torch import Tensor

from creditflow.populations.network import Network, Parameters, Pass, tanh, tanh_change, uniform
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Clean,
    TargetMethod,
    corruptions,
    hidden_layers,
    hidden_widths,
    pushed,
    reconstruction,
    unless_tanh,
    xavier_normal,
)
from creditflow.populations.rules.settings.ddtp_rhl import Settings


def init(network: Network, settings: Settings, generator: torch.Generator) -> Parameters:
    """Draws R (width, C) and r from U(+-1 / sqrt(C)), as torch.nn.Linear does, and Q_i Xavier normal; sets c_i = 0."""
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


def signals(network: Network, feedback: Parameters, activity: Pass) -> dict[int, Tensor]:
    """Returns g_i (B, n_i) at the clean logits; layer 0 stands for the random layer's h (B, width)."""
    down = {0: tanh(activity.logits @ feedback["r"].T + feedback["r_bias"])}
    for layer in hidden_layers(network):
        q = feedback[f"q{layer}"]
        down[layer] = tanh(_source(network, activity, down[0], layer, q.shape[1]) @ q.T + feedback[f"c{layer}"])
    return down


def _source(network: Network, activity: Pass, h: Tensor, layer: int, width: int) -> Tensor:
    """Returns the input of g_i (B, width): the logits for the last hidden layer, else h, or h and h_i if wider."""
    if layer == network.n_layers - 1:
        return activity.logits
    return h if width == h.shape[1] else torch.cat([h, activity.hidden[layer - 1]], 1)


def _moved(clean: Clean, logits: Tensor) -> Tensor:
    """Returns the change of h for a change of the logits."""
    return tanh_change(clean.down[0], logits @ clean.feedback["r"].T)


def _sent(clean: Clean, moved: Tensor, layer: int) -> Tensor:
    """Returns the change of g_i (B, n_i) for a change of the logits or of h; its h_i stays as in the clean pass."""
    return tanh_change(clean.down[layer], moved @ clean.feedback[f"q{layer}"][:, : moved.shape[1]].T)


def targets(clean: Clean, output: Tensor) -> dict[int, Tensor]:
    """Returns target minus activation (B, n_l) by layer."""
    last = clean.network.n_layers - 1
    moved = _moved(clean, output) if last > 1 else output
    return {layer: _sent(clean, output if layer == last else moved, layer) for layer in hidden_layers(clean.network)}


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses with respect to Q_i and c_i."""
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    for layer, (noise, logits) in enumerate(zip(noises, pushed(clean, noises), strict=True), 1):
        moved = logits if layer == clean.network.n_layers - 1 else _moved(clean, logits)
        through, less = reconstruction(clean.down[layer], _sent(clean, moved, layer), noise, settings.sigma)
        width = clean.feedback[f"q{layer}"].shape[1]
        source = _source(clean.network, clean.activity, clean.down[0], layer, width)
        padded = torch.nn.functional.pad(moved, (0, width - moved.shape[1]))
        directions |= {f"q{layer}": through.T @ padded + less.T @ source, f"c{layer}": less.sum(0)}
    return directions


METHOD = TargetMethod(targets=targets, learn=learn, down=signals)

RULE = UpdateRule(
    title="DDTP-RHL",
    order=160,
    color="#CC79A7",
    marker="v",
    init=init,
    step=METHOD.step,
    feedback_step=METHOD.feedback_step,
    noise_widths=hidden_widths,
    step_takes_noise=True,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
