"""What a rule's step costs in arithmetic."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network
from creditflow.populations.rule import Batch, UpdateRule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.start import draw_start


def flops_per_image(
    rule: UpdateRule, rule_settings: Any, network: Network, settings: PopulationSettings
) -> tuple[float, float]:
    """Returns the floating-point operations per image of a batch: those of a step, and those of a feedback step (0
    without).

    They are what PyTorch counts: two for each multiplication in products of matrices and in convolutions. Elementwise
    operations do not count.
    """
    n = settings.batch_size
    parameters, feedback = (
        {name: value.float() for name, value in state.items()}
        for state in draw_start(rule, rule_settings, network, settings, 0)
    )
    noise = tuple(torch.zeros(n, width) for width in rule.noise_widths(network, rule_settings))
    targets = torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.int64), network.widths[-1]).float()
    batch = Batch(torch.zeros(n, network.widths[0]), targets, (), noise)

    def counted(function: Any) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            function(network, LOSSES[settings.loss], rule_settings, parameters, feedback, batch)
        return float(counter.get_total_flops()) / n

    return counted(rule.step), counted(rule.feedback_step) if rule.feedback_step else 0.0
