"""DTPDRL: difference target propagation whose feedback learns by the difference reconstruction loss (Meulemans et al., 2020).

Targets are DTP's. Feedback at layer i learns with the whole network: h_i + sigma eps is sent up to the output and down again through the
corrected g_k, and the loss is mean (u_i - h_i - sigma eps)^2 / sigma^2, of which only Q_i and c_i take the gradient. Its minimum makes the
path from the output to layer i a damped pseudo-inverse of the path up (Theorem 4); the damping is the feedback's weight decay.
"""

from creditflow.populations.network import Parameters, tanh_change
from creditflow.populations.rule import Batch
from creditflow.populations.rules._targets import (
    Clean,
    Settings,
    activations,
    corruptions,
    hidden_layers,
    pushed,
    reconstruction,
    rows,
    target_rule,
    unless_tanh,
)
from creditflow.populations.rules.dtp import init, signals, targets


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses by Q_i and c_i, in differences from the clean pass.

    Noise of all layers travels together: at layer k row i is what the noise of layer i <= k has become there.
    """
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    moved = pushed(clean, noises)
    for layer in reversed(hidden_layers(clean.network)):
        change = tanh_change(clean.down[layer], rows(moved, clean.feedback[f"q{layer}"]))
        through, less = reconstruction(clean.down[layer], change[-1], noises[layer - 1], settings.sigma)
        directions[f"q{layer}"] = through.T @ moved[-1] + less.T @ activations(clean.found, layer + 1)
        directions[f"c{layer}"] = less.sum(0)
        moved = change[:-1]
    return directions


RULE = target_rule(
    "DTPDRL",
    Settings,
    init,
    targets,
    learn,
    signals,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
