"""Where the members of a population start, and whether they can."""

from collections.abc import Sequence
from typing import Any

import torch

from creditflow.compute import randomness
from creditflow.core import files
from creditflow.core.errors import UserError
from creditflow.populations.images import FlatImages
from creditflow.populations.memory import check_memory
from creditflow.populations.network import Network, Parameters, initial_parameters, network_of
from creditflow.populations.population import Member, Population, norms
from creditflow.populations.rule import UpdateRule
from creditflow.populations.settings import PopulationSettings


def draw_start(
    rule: UpdateRule, rule_settings: Any, network: Network, settings: PopulationSettings, seed: int
) -> tuple[Parameters, Parameters]:
    """Returns the parameters and the feedback state of one member, float64 on the CPU.

    Both depend on the seed alone, and the parameters do not depend on the rule.
    """
    weights, feedback = (randomness.generator("population", kind, seed) for kind in ("weights", "feedback"))
    parameters = initial_parameters(network, settings.initialisation, weights, biases=settings.biases)
    return parameters, rule.init(network, rule_settings, feedback)


def network_for(data: FlatImages, settings: PopulationSettings) -> Network:
    """Returns what each member is. Raises UserError for convolutions on images without a shape."""
    return network_of(
        data.pixels.shape[1], settings.hidden, data.n_classes, settings.activation, settings.convolutions, data.shape
    )


def check_rule(rule: UpdateRule, network: Network, settings: PopulationSettings) -> None:
    """Raises UserError unless the rule can train such a network in the way that the settings ask for."""
    if network.convolutions and not rule.convolutional:
        raise UserError(f"{rule.title} knows fully connected layers only; leave convolutions out")
    if settings.dropout and not rule.dropout:
        raise UserError(f"{rule.title} knows no dropout; leave it out")


def start_population(
    rule: UpdateRule,
    rule_settings: Any,
    network: Network,
    members: Sequence[Member],
    settings: PopulationSettings,
    device: torch.device,
) -> Population:
    """Returns the untrained population on a device, and prints what the rule warns of.

    Raises UserError if the population needs more memory than the device has.
    """
    check_memory(network, 0, len(members), settings, device)  # before anything of that size is drawn
    _, feedback = draw_start(rule, rule_settings, network, settings, members[0].seed)
    n_feedback = sum(value.numel() for value in feedback.values())
    check_memory(network, n_feedback, len(members), settings, device)
    for warning in rule.warnings(network, rule_settings):
        files.warn(warning)
    seeds = {member.seed for member in members}
    drawn = {seed: draw_start(rule, rule_settings, network, settings, seed) for seed in seeds}
    dtype: torch.dtype = getattr(torch, settings.precision)
    parameters, feedback = (
        _stacked([drawn[member.seed][part] for member in members], device, dtype) for part in (0, 1)
    )
    return _untrained(members, network, parameters, feedback)


def _stacked(states: list[Parameters], device: torch.device, dtype: torch.dtype) -> Parameters:
    """Returns tensors with a leading dimension for the members."""
    return {name: torch.stack([state[name] for state in states]).to(device, dtype) for name in states[0]}


def _untrained(members: Sequence[Member], network: Network, parameters: Parameters, feedback: Parameters) -> Population:
    never = torch.zeros(len(members), dtype=torch.int64)
    return Population(
        list(members),
        network,
        parameters,
        feedback,
        best={name: value.clone() for name, value in parameters.items()},
        best_feedback={name: value.clone() for name, value in feedback.items()},
        best_score=never - 1.0,
        best_epoch=never,
        diverged=never,
        stopped=never,
        norm=norms(parameters),
        history=[[] for _ in members],
    )
