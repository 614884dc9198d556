"""Where a member starts."""

from typing import Any

from creditflow.compute import randomness
from creditflow.populations.network import Network, Parameters, initial_parameters
from creditflow.populations.rule import UpdateRule
from creditflow.populations.settings import PopulationSettings


def draw_start(
    rule: UpdateRule, rule_settings: Any, network: Network, settings: PopulationSettings, seed: int
) -> tuple[Parameters, Parameters]:
    """Returns parameters and feedback state, float64 on the CPU; they depend on the seed alone, and parameters not on the rule."""
    weights, feedback = (randomness.generator("population", kind, seed) for kind in ("weights", "feedback"))
    parameters = initial_parameters(network, settings.initialisation, weights, biases=settings.biases)
    return parameters, rule.init(network, rule_settings, feedback)
