"""Weight mirroring (Akrout et al., 2019): between training steps, noise x goes into each layer alone, and the feedback matrix learns
B_l += r_B y x^T from the response y = f(W_l x + b_l). As E[y x^T] = s^2 diag(E f') W_l for noise of variance s^2, B_l turns to W_l's
direction. It needs a decay of its own, or it would grow for ever.
"""

from dataclasses import dataclass

from creditflow.populations.losses import Loss
from creditflow.populations.network import Network, Parameters
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.rules import fa
from creditflow.populations.rules._backward import init_like_weights


@dataclass(frozen=True)
class Settings:
    """The mirror phase.

    Attributes:
        noise: x ~ noise (U[0, 1] - 1/2); 0.1 in the authors' code.
        rate: of the feedback matrices, in units of the learning rate.
        decay: of the feedback matrices, in units of their rate, times the noise's variance: 1 lets them become W_l.
        initial_steps: mirror steps before training.
    """

    noise: float = 0.1
    rate: float = 100.0
    decay: float = 1.0
    initial_steps: int = 200

    def __post_init__(self) -> None:
        if not (self.noise > 0 and self.rate > 0 and self.decay >= 0 and self.initial_steps >= 0):
            raise ValueError("noise and rate must be positive, decay and initial_steps at least 0")


def feedback_step(
    network: Network, loss: Loss, settings: Settings, parameters: Parameters, feedback: Parameters, batch: Batch
) -> Parameters:
    """Returns -r_B (y x^T / B - decay s^2 B_l), each layer with noise of its own."""
    variance, directions = settings.noise**2 / 12, {}
    for name in feedback:
        layer = int(name.removeprefix("feedback"))
        x = settings.noise * (batch.noise[layer - 2] - 0.5)
        z = x @ parameters[f"weight{layer}"].T + parameters[f"bias{layer}"]
        y = network.activate.value(z) if layer < network.n_layers else z
        directions[name] = settings.rate * (settings.decay * variance * feedback[name] - y.T @ x / len(x))
    return directions


RULE = UpdateRule(
    name="WM",
    settings=Settings,
    init=init_like_weights,
    step=fa.step,
    feedback_step=feedback_step,
    follows=True,
    dropout=True,
    noise=lambda network, settings: network.widths[1:-1],
    initial_steps=lambda settings: settings.initial_steps,
    plastic=("uu", "dd"),
    connected=("uu", "dd"),
)
