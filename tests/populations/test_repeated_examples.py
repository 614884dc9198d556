"""An update is a mean over examples: to repeat an example, or a whole batch, changes nothing. In float64, for every
rule that there is; rules with targets keep this with a step in proportion to the batch, see WITHOUT_STEP_SIZE.

Random numbers that a rule draws for each example (dropout masks, noise) are repeated with the example. Drawn anew they
would be other examples.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from creditflow.core import plugins
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, initial_parameters, network_of
from creditflow.populations.rule import Batch, UpdateRule, get_update_rule

RULES = plugins.names("update_rule")

#: Settings that have no default in some rules.
NEEDED = {"step_size": 0.3, "sigma": 0.2, "width": 9}

#: Beside each rule as it is by default: what can be set to change its arithmetic.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((rule, {}) for rule in RULES),
    *(("sal", {"downstream_activation": kind}) for kind in ("relu_jacobian", "relu", "tanh")),
    ("sal", {"upstream_mask": True, "downstream": [9, 4], "v_bar_learns_from": "pre"}),
    ("pepita", {"output_error": "second"}),
    ("pepita", {"adversarial_presynaptic": "natural"}),
    ("ddtp_rhl", {"recurrent": True}),
    ("gnt", {"damping": 0.3}),
]

#: The published step of rules with targets holds 1 / B twice: once in the output's target, and once in the mean of the
#: local losses. So the same example has a nearer target in a larger batch. What these rules can promise is that the
#: step is a mean once the output's step is in proportion to the batch. The two without a step size are linear in the
#: output's step, and so their whole update is in proportion to 1 / B.
WITHOUT_STEP_SIZE = ("dfa_targets", "gnt")

DENSE = Network((7, 6, 5, 3), "tanh")
CONVOLUTIONAL = network_of(16, [5], 3, "tanh", [2], (1, 4, 4))


def parsed(rule: UpdateRule, changes: dict[str, Any], times: int) -> Any:
    known = plugins.settings_class("update_rule", rule.name).model_fields
    values = {name: value for name, value in NEEDED.items() if name in known and known[name].is_required()}
    if "step_size" in values:
        values["step_size"] *= times
    return rule.parse_settings(values | changes)


def start(rule: UpdateRule, network: Network, chosen: Any, n: int) -> tuple[Parameters, Parameters, Batch]:
    """Draws a network with biases and n examples with all random numbers that the rule asks for."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parameters = initial_parameters(network, "he_uniform", generator)
    feedback = rule.init(network, chosen, generator)
    targets = torch.eye(network.widths[-1], dtype=torch.float64)[torch.arange(n) % network.widths[-1]]
    masks = tuple(1 + normal(n, width).sign() / 2 for width in network.widths[1:-1]) if rule.dropout else ()
    noise = tuple(normal(n, width) for width in rule.noise_widths(network, chosen))
    return parameters, feedback, Batch(normal(n, network.widths[0]), targets, masks, noise)


def repeated(batch: Batch, times: int) -> Batch:
    def again(values: Tensor) -> Tensor:
        return values.repeat(times, 1)

    masks, noise, presynaptic = (
        tuple(map(again, tensors)) for tensors in (batch.masks, batch.noise, batch.presynaptic)
    )
    return Batch(again(batch.images), again(batch.targets), masks, noise, presynaptic)


def check_repeating(rule_id: str, changes: dict[str, Any], network: Network, n: int, times: int) -> None:
    rule, loss = get_update_rule(rule_id), LOSSES["cross_entropy"]
    once, often = (parsed(rule, changes, factor) for factor in (1, times))
    parameters, feedback, batch = start(rule, network, once, n)
    natural = batch._replace(images=batch.images.flip(0).tanh())  # the batch takes the part of its adversarial version
    batch = batch._replace(presynaptic=rule.step(network, loss, once, parameters, feedback, natural).presynaptic)
    assert len(batch.presynaptic) == (changes.get("adversarial_presynaptic") == "natural")
    many = repeated(batch, times)
    expected = rule.step(network, loss, once, parameters, feedback, batch).directions
    found = rule.step(network, loss, often, parameters, feedback, many).directions
    scale = times if rule_id in WITHOUT_STEP_SIZE else 1
    assert expected.keys() == found.keys() and all(float(value.abs().max()) > 0 for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close(scale * found[name], value, rtol=1e-9, atol=1e-13, msg=name)
    if rule.feedback_step is not None:
        alone = rule.feedback_step(network, loss, once, parameters, feedback, batch)
        together = rule.feedback_step(network, loss, once, parameters, feedback, many)
        torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(("n", "times"), [(5, 2), (1, 256)], ids=["a batch twice", "one example 256 times"])
@pytest.mark.parametrize(("rule", "changes"), VARIANTS)
def test_to_repeat_examples_changes_no_update(rule: str, changes: dict[str, Any], n: int, times: int) -> None:
    check_repeating(rule, changes, DENSE, n, times)


@pytest.mark.parametrize("rule", [rule for rule in RULES if get_update_rule(rule).convolutional])
def test_nor_does_it_under_convolutions(rule: str) -> None:
    check_repeating(rule, {}, CONVOLUTIONAL, 2, 3)
