"""Weight mirroring (Akrout et al., 2019): between training steps, feedback matrices learn from noise.

The noise x is sent into each layer by itself. From the response y = f(W_l x + b_l) the feedback matrix learns
B_l += r_B y x^T. For noise of variance s^2, E[y x^T] = s^2 diag(E f') W_l, so that B_l turns to the direction of W_l.
B_l needs its own decay, or it would grow for ever.

The authors' noise, 0.1 wide, is small against biases b_l. With biases a ReLU unit stays open or closed whatever the
noise is, and the row of B_l that belongs to a closed unit only decays. So B_l does not turn to W_l whole: leave biases
out (`biases: false`), or make the noise as wide as inputs are.
"""

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules import fa
from creditflow.populations.rules._backward import init_like_weights
from creditflow.populations.rules.settings.wm import Settings


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns -r_B (y x^T / B - decay s^2 B_l), with separate noise for each layer."""
    variance, directions = settings.noise**2 / 12, {}
    for name in feedback:
        layer = int(name.removeprefix("feedback"))
        x = settings.noise * (batch.noise[layer - 2] - 0.5)
        z = x @ parameters[f"weight{layer}"].T + parameters[f"bias{layer}"]
        y = network.activate.value(z) if layer < network.n_layers else z
        directions[name] = settings.rate * (settings.decay * variance * feedback[name] - y.T @ x / len(x))
    return directions


def initial_feedback_steps(settings: Settings) -> int:
    """Returns how many steps B learns before training."""
    return settings.initial_steps


def noise_widths(network: Network, settings: Settings) -> tuple[int, ...]:
    """Returns the widths of the hidden layers, which each get noise of their own."""
    return network.widths[1:-1]


RULE = UpdateRule(
    title="WM",
    order=70,
    color="#0072B2",
    marker="<",
    init=init_like_weights,
    step=fa.step,
    feedback_step=feedback_step,
    feedback_step_after_each_step=True,
    initial_feedback_steps=initial_feedback_steps,
    noise_widths=noise_widths,
    dropout=True,
    connected=("uu", "dd"),
    plastic=("uu", "dd"),
)
