"""SAL's short-term modulation (section 2.3 of its paper) against autograd and the sum written out, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from creditflow.core.effects import idle_keys
from creditflow.core.settings import parse
from creditflow.populations.images import FlatImages
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, initial_parameters
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import Batch, get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import train_population

MSE = LOSSES["mse"]
SAL = get_update_rule("sal")


def case(network: Network, **values: Any) -> tuple[Any, Parameters, Parameters, Batch]:
    generator = torch.Generator().manual_seed(2)
    chosen = SAL.parse_settings(values)
    parameters = initial_parameters(network, "gaussian", generator)
    images = torch.randn(6, network.widths[0], generator=generator, dtype=torch.float64)
    targets = torch.eye(network.widths[-1], dtype=torch.float64)[torch.arange(6) % network.widths[-1]]
    return chosen, parameters, SAL.init(network, chosen, generator), Batch(images, targets)


def measured(
    network: Network, chosen: Any, parameters: Parameters, feedback: Parameters, batch: Batch
) -> dict[str, float]:
    assert SAL.measure_batch is not None
    rows = SAL.measure_batch(network, MSE, chosen, parameters, feedback, batch)
    return {name: float(value) for name, value in rows.items()}


def pass_up(parameters: Parameters, x: Tensor, added: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Hidden activities with what is added to each, and the outputs, of one image."""
    hidden = []
    for k, more in enumerate(added, 1):
        x = (parameters[f"weight{k}"] @ x + parameters[f"bias{k}"]).relu() + more
        hidden.append(x)
    k = len(added) + 1
    return hidden, parameters[f"weight{k}"] @ x + parameters[f"bias{k}"]


def test_the_signal_is_added_to_each_hidden_layer_on_the_way_up() -> None:
    network, scale = Network((5, 6, 4, 3)), 0.7
    chosen, p, f, batch = case(network, downstream=[7, 5], downstream_activation="tanh", modulation=[scale])
    losses, cosines = [], []
    for x, y in zip(batch.images, batch.targets, strict=True):
        nothing = [torch.zeros(width, dtype=torch.float64, requires_grad=True) for width in (6, 4)]
        _, output = pass_up(p, x, nothing)
        before = (output - y).square().sum()
        gradients = torch.autograd.grad(before, nothing)  # with respect to the hidden activities
        error = -2 * (output - y).detach()
        second = (f["w_bar2"] @ error).tanh()
        first = (f["w_bar1"] @ second).tanh()
        signals = [f["v_bar1"] @ first, f["v_bar2"] @ second]
        after = (pass_up(p, x, [scale * signal for signal in signals])[1] - y).square().sum()
        losses.append((float(before.detach()), float(after)))
        pairs = zip(signals, gradients, strict=True)
        cosines += [float(torch.cosine_similarity(signal, -gradient, dim=0)) for signal, gradient in pairs]
    found = measured(network, chosen, p, f, batch)
    before_all, after_all = (sum(column) for column in zip(*losses, strict=True))
    assert found["modulation_loss_scale0.7"] == pytest.approx(after_all / before_all, rel=1e-12)
    assert found["modulation_helps_scale0.7"] == sum(after < before for before, after in losses) / 6
    assert found["modulation_cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-12)


def test_where_the_signal_is_minus_the_gradient_a_small_one_lowers_every_loss() -> None:
    """Below one hidden layer, V = Vb = I and Wb = W^T make it so. To first order the loss falls by s |gradient|^2."""
    network = Network((5, 6, 3))
    chosen, p, _, batch = case(network, modulation=[1e-6, 1e-2])
    eye = torch.eye(6, dtype=torch.float64)
    circuit = {"v1": eye, "v_bar1": eye, "w_bar1": p["weight2"].T}
    found = measured(network, chosen, p, circuit, batch)
    hidden = (batch.images @ p["weight1"].T + p["bias1"]).relu().requires_grad_()
    losses = (hidden @ p["weight2"].T + p["bias2"] - batch.targets).square().sum(1)
    (gradients,) = torch.autograd.grad(losses.sum(), hidden)
    fall = 1e-6 * float(gradients.square().sum() / losses.detach().sum())
    assert 1 - found["modulation_loss_scale1e-06"] == pytest.approx(fall, rel=1e-4)
    assert found["modulation_cosine"] == pytest.approx(1, abs=1e-12)
    assert found["modulation_helps_scale0.01"] == 1
    against = measured(network, chosen, p, circuit | {"v_bar1": -eye}, batch)
    assert against["modulation_cosine"] == pytest.approx(-1, abs=1e-12)
    assert against["modulation_helps_scale1e-06"] == 0 and against["modulation_loss_scale1e-06"] > 1


def trained(rule: dict[str, Any], **changes: Any) -> Population:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (90, 16), generator=generator, dtype=torch.uint8)
    data = FlatImages(pixels, torch.arange(90) % 3, 3)
    values = {"epochs": 2, "batch_size": 16, "hidden": [8, 7], "loss": "mse", "validation_images": 20} | changes
    settings = parse(PopulationSettings, values | {"rule": {"scale": 0.5} | rule}, "settings")
    return train_population(SAL, [Member(0, 0.01), Member(1, 0.02)], data, data, settings)


def test_it_is_measured_after_each_epoch_and_changes_no_training() -> None:
    names = {"modulation_loss_scale0.1", "modulation_helps_scale0.1", "modulation_cosine"}
    plain, watched = trained({}, angle_images=30), trained({"modulation": [0.1]}, angle_images=30)
    for rows, others in zip(watched.history, plain.history, strict=True):
        assert [set(row) - set(other) for row, other in zip(rows, others, strict=True)] == [names, names]
        assert all(row[name] == value for row, other in zip(rows, others, strict=True) for name, value in other.items())
    for name, value in (plain.parameters | plain.feedback).items():
        assert torch.equal(value, (watched.parameters | watched.feedback)[name])


def test_a_scale_that_is_too_large_marks_no_member_as_diverged() -> None:
    population = trained({"modulation": [1e6]}, angle_images=30, hidden=[8] * 12)
    assert not population.diverged.any() and all(len(rows) == 2 for rows in population.history)


def test_without_images_to_measure_on_it_has_no_effect() -> None:
    settings = parse(
        PopulationSettings, {"epochs": 1, "batch_size": 1, "hidden": [3], "rule": {"modulation": [0.1]}}, "settings"
    )
    assert idle_keys(settings)["rule.modulation"] == "without angle_images"
