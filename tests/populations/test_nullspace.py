"""The share of an update in the null space, against the singular value decomposition of autograd's Jacobian."""

import pytest
import torch

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.network import Network, forward, initial_parameters
from creditflow.populations.nullspace import REGRESSION, null_share, nullspace_ratios
from creditflow.populations.nullspace_settings import NullspaceSettings
from creditflow.populations.rule import Batch, get_update_rule

QUICK = {"feedback_epochs": 12, "epochs": 1, "examples": 200}
LINEAR = {"rule": {"step_size": 0.04, "sigma": 0.06}, "feedback_learning_rate": 0.003, "feedback_weight_decay": 1e-4}


def test_the_share_is_that_of_the_jacobians_null_space() -> None:
    network = Network((6, 6, 6, 2), "tanh")
    parameters = initial_parameters(network, "default", torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    image, target = torch.randn(1, 6, generator=generator).double(), torch.randn(1, 2, generator=generator).double()
    rule = get_update_rule("dfa_targets")
    rule_settings = rule.parse_settings({"last_hidden_bias": True})
    feedback = rule.init(network, rule_settings, generator)
    direction = rule.step(network, REGRESSION, rule_settings, parameters, feedback, Batch(image, target)).directions[
        "weight2"
    ]

    def output(weight: torch.Tensor) -> torch.Tensor:
        return forward(network, parameters | {"weight2": weight}, image).logits[0]

    jacobian = torch.autograd.functional.jacobian(output, parameters["weight2"]).flatten(1)
    null = torch.linalg.svd(jacobian).Vh[2:]
    expected = (null @ direction.flatten()).norm() / direction.norm()
    assert float(null_share(network, parameters, image, direction)) == pytest.approx(float(expected), rel=1e-9)
    assert float(expected) > 0.3


@pytest.mark.parametrize("rule", ["bp", "gnt"])
def test_gradients_and_exact_gauss_newton_targets_have_none(rule: str) -> None:
    result = nullspace_ratios(
        get_update_rule(rule), parse(NullspaceSettings, QUICK | {"feedback_epochs": 0}, "settings"), 3
    )
    assert len(result) == 20 and float(result.max()) < 1e-10


def test_feedback_that_learns_by_the_difference_loss_takes_it_away() -> None:
    rule = get_update_rule("ddtp_linear")
    before, after = (
        nullspace_ratios(rule, parse(NullspaceSettings, QUICK | LINEAR | {"feedback_epochs": epochs}, "settings"), 0)
        for epochs in (0, 25)
    )
    assert float(after.mean()) < 0.5 * float(before.mean())
    first, again = (
        nullspace_ratios(rule, parse(NullspaceSettings, QUICK | LINEAR | {"feedback_epochs": 3}, "settings"), 0)
        for _ in range(2)
    )
    assert torch.equal(first, again) and not torch.equal(first, before)
    assert (
        randomness.generator("nullspace", "data", 0).initial_seed()
        != randomness.generator("nullspace", "data", 1).initial_seed()
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (LINEAR | {"feedback_learning_rate": 100.0}, "its feedback diverged; lower feedback_learning_rate"),
        (LINEAR | {"rule": {"step_size": 0.04, "sigma": 0}}, "sigma must be above 0, not 0"),
        ({"every": 500}, "every is 500, more than the 200 examples of an epoch; lower every"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"feedback_learning_rate": 0.0}, "feedback_learning_rate must be above 0, not 0"),
    ],
)
def test_mistakes_are_explained(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        nullspace_ratios(get_update_rule("ddtp_linear"), parse(NullspaceSettings, QUICK | settings, "settings"), 0)


@pytest.mark.parametrize("rule", ["wm", "kp", "sal"])
def test_rules_whose_feedback_learns_otherwise_are_refused(rule: str) -> None:
    with pytest.raises(UserError, match="leave it out of nullspace"):
        nullspace_ratios(get_update_rule(rule), parse(NullspaceSettings, QUICK, "settings"), 0)
