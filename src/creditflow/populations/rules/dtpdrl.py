"""DTPDRL: difference target propagation whose feedback learns by the difference reconstruction loss (Meulemans et al., 2020).

Targets are DTP's. Feedback at layer i learns with the whole network: h_i + sigma eps is sent up to the output and down again through the
corrected g_k, and the loss is mean (u_i - h_i - sigma eps)^2 / sigma^2, of which only Q_i and c_i take the gradient. Its minimum makes the
path from the output to layer i a damped pseudo-inverse of the path up (Theorem 4); the damping is the feedback's weight decay.
"""

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters, forward, tanh_change
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules._targets import (
    Settings,
    activations,
    corruption,
    hidden_layers,
    joint_step,
    needed_noise,
    pushed,
)
from creditflow.populations.rules.dtp import back, init, targets


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns the gradients of the difference reconstruction losses by Q_i and c_i, in differences from the clean pass."""
    found = forward(network, parameters, batch.images)
    directions: Parameters = {}
    clean = {layer: back(feedback, layer, activations(found, layer + 1)) for layer in hidden_layers(network)}
    for layer in hidden_layers(network):
        noise = corruption(batch, layer, settings.sigma)
        moved = pushed(network, parameters, found, layer, noise)
        for above in range(network.n_layers - 1, layer, -1):
            moved = tanh_change(clean[above], moved @ feedback[f"q{above}"].T)
        g, change = clean[layer].tanh(), tanh_change(clean[layer], moved @ feedback[f"q{layer}"].T)
        error = 2 / (settings.sigma**2 * noise.numel()) * (change - noise)
        # g' at the corrupted place is 1 - (g + change)^2; less that at the clean one, - change (2 g + change).
        through, less = error * (1 - (g + change).square()), -error * change * (2 * g + change)
        directions[f"q{layer}"] = through.T @ moved + less.T @ activations(found, layer + 1)
        directions[f"c{layer}"] = less.sum(0)
    return directions


RULE = UpdateRule(
    name="DTPDRL",
    settings=Settings,
    init=init,
    step=joint_step(targets, feedback_step),
    feedback_step=feedback_step,
    noise=needed_noise,
    noisy_step=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
