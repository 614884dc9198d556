"""DTPDRL: difference target propagation whose feedback learns by the difference reconstruction loss (Meulemans et al.,
2020).

Targets are those of DTP. Feedback at layer i learns with the whole network: h_i + sigma eps is sent up to the output,
and down again through the corrected g_k, where it arrives as u_i. The loss is mean (u_i - h_i - sigma eps)^2 / sigma^2.
Only Q_i and c_i descend its gradient. At its minimum the path from the output to layer i is a damped pseudo-inverse of
the path up (Theorem 4); the damping is the feedback's weight decay.
"""

from creditflow.populations.network import Parameters, tanh_change
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Clean,
    TargetMethod,
    activations,
    corruptions,
    hidden_layers,
    hidden_widths,
    pushed,
    reconstruction,
    rows,
    unless_tanh,
)
from creditflow.populations.rules.dtp import init, signals, targets
from creditflow.populations.rules.settings.dtpdrl import Settings


def learn(settings: Settings, clean: Clean, batch: Batch) -> Parameters:
    """Returns the gradients of the difference reconstruction losses with respect to Q_i and c_i.

    All values are differences from the clean pass. The noise of all layers travels together: at layer k, row i is what
    the noise of layer i <= k has become there.
    """
    noises, directions = corruptions(batch, settings.sigma), Parameters()
    moved = pushed(clean, noises)
    for layer in reversed(hidden_layers(clean.network)):
        change = tanh_change(clean.down[layer], rows(moved, clean.feedback[f"q{layer}"]))
        through, less = reconstruction(clean.down[layer], change[-1], noises[layer - 1], settings.sigma)
        directions[f"q{layer}"] = through.T @ moved[-1] + less.T @ activations(clean.activity, layer + 1)
        directions[f"c{layer}"] = less.sum(0)
        moved = change[:-1]
    return directions


METHOD = TargetMethod(targets=targets, learn=learn, down=signals)

RULE = UpdateRule(
    title="DTPDRL",
    order=140,
    color="#009E73",
    marker="D",
    init=init,
    step=METHOD.step,
    feedback_step=METHOD.feedback_step,
    noise_widths=hidden_widths,
    step_takes_noise=True,
    warnings=unless_tanh,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
