"""Populations of small convolutional networks against autograd, PyTorch's own layers and the authors' scaling, in
float64."""

import pytest
import torch
from torch import Tensor, nn

from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.models.build import ImageClassifier, ModelSpec
from creditflow.populations.images import FlatImages
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, forward, initial_parameters, network_of
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.optimizers import Optimizer
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import Batch, get_update_rule
from creditflow.populations.selection import member_model
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.storage import SavedPopulation
from creditflow.populations.training import train_population

CE = LOSSES["cross_entropy"]
SHAPE = (2, 9, 8)  # odd and even, so that pooling rounds
NETWORK = network_of(144, (7,), 3, "tanh", (3, 4), SHAPE)
DIRECT = ["ddtp_linear", "ddtp_control"]


def case(rule: str) -> tuple[object, Parameters, Parameters, Batch]:
    generator = torch.Generator().manual_seed(0)
    values = {"step_size": 0.1, "sigma": 0.3} if rule in DIRECT else {}
    values |= {"last_hidden_bias": True} if rule in ("ddtp_linear", "dfa_targets") else {}
    chosen = get_update_rule(rule).parse_settings(values)
    parameters = initial_parameters(NETWORK, "xavier_normal", generator)
    for name, value in parameters.items():
        if name.startswith("bias"):
            value.normal_(std=0.2, generator=generator)
    feedback = get_update_rule(rule).init(NETWORK, chosen, generator)
    images = torch.randn(4, 144, generator=generator, dtype=torch.float64)
    targets = nn.functional.one_hot(torch.tensor([0, 1, 2, 1]), 3).double()
    noise = tuple(torch.randn(4, width, generator=generator, dtype=torch.float64) for width in NETWORK.widths[1:-1])
    return chosen, parameters, feedback, Batch(images, targets, (), noise)


def module(parameters: Parameters) -> ImageClassifier:
    """The same network of torch.nn's layers."""
    options = {"hidden": [7], "activation": "tanh", "convolutions": [3, 4]}
    spec = ModelSpec("mlp", SHAPE, 3, (0.0, 0.0), (1.0, 1.0), options)
    stacked = {name: value[None] for name, value in parameters.items()}
    return member_model(SavedPopulation(stacked, {}, {"spec": spec.to_json()}), 0)


def test_shapes_and_outputs_are_those_of_torchs_layers() -> None:
    assert NETWORK.widths == (144, 3 * 5 * 4, 4 * 3 * 2, 7, 3)
    _, parameters, _, batch = case("bp")
    expected = module(parameters)(batch.images.view(4, *SHAPE).float())
    torch.testing.assert_close(
        forward(NETWORK, parameters, batch.images).logits.float(), expected, rtol=1e-5, atol=1e-5
    )
    assert {layer: tuple(parameters[f"weight{layer}"].shape) for layer in range(1, 5)} == NETWORK.weight_shapes()


def test_the_papers_network_has_its_shapes() -> None:
    network = network_of(3072, (512,), 10, "tanh", (32, 64), (3, 32, 32))
    assert network.widths == (3072, 8192, 4096, 512, 10)
    assert network.weight_shapes() == {1: (32, 3, 5, 5), 2: (64, 32, 5, 5), 3: (512, 4096), 4: (10, 512)}
    weight = initial_parameters(network, "xavier_normal", torch.Generator().manual_seed(0))["weight2"]
    assert float(weight.std()) == pytest.approx((2 / (25 * 96)) ** 0.5, rel=0.02)


def leaves(parameters: Parameters) -> Parameters:
    return {name: value.clone().requires_grad_() for name, value in parameters.items()}


def test_backpropagation_is_autograds() -> None:
    rule_settings, parameters, feedback, batch = case("bp")
    result = get_update_rule("bp").step(NETWORK, CE, rule_settings, parameters, feedback, batch).directions
    tracked = leaves(parameters)
    CE.value(forward(NETWORK, tracked, batch.images).logits, batch.targets).mean().backward()
    for name, value in result.items():
        torch.testing.assert_close(value, tracked[name].grad)


def upward(parameters: Parameters, h: Tensor, layer: int) -> Tensor:
    """What the network makes of a hidden layer's activations, with torch.nn.functional."""
    for above in range(layer + 1, 5):
        weight, bias = parameters[f"weight{above}"], parameters[f"bias{above}"]
        if above <= 2:
            z = nn.functional.conv2d(h.view(len(h), *NETWORK.shape(above - 1)), weight, bias, padding=2)
            h = nn.functional.max_pool2d(z.tanh(), 3, 2, 1).flatten(1)
        else:
            h = h @ weight.T + bias
            h = h.tanh() if above < 4 else h
    return h


@pytest.mark.parametrize("rule", DIRECT)
def test_feedback_descends_its_loss_exactly(rule: str) -> None:
    rule_settings, parameters, feedback, batch = case(rule)
    step = get_update_rule(rule).feedback_step
    assert step is not None
    directions = step(NETWORK, CE, rule_settings, parameters, feedback, batch)
    clean = forward(NETWORK, parameters, batch.images)
    for layer in (1, 2, 3):
        tracked = leaves(feedback)
        noise = 0.3 * batch.noise[layer - 1]
        h = clean.inputs[layer]
        y = upward(parameters, h + noise, layer)
        if rule == "ddtp_linear":
            lost = ((y - clean.logits) @ tracked[f"q{layer}"].T - noise).square().mean() / 0.3**2
        else:
            lost = (y @ tracked[f"q{layer}"].T + tracked.get(f"c{layer}", torch.zeros(1)) - h - noise).square().mean()
        lost.backward()
        for name in (f"q{layer}", f"c{layer}"):
            if name in feedback:
                torch.testing.assert_close(directions[name], tracked[name].grad, rtol=1e-8, atol=1e-12)
    # Feedback to maps of a convolution has no bias, as in the authors' code.
    assert set(feedback) == {"q1", "q2", "q3"} | ({"c3"} if rule == "ddtp_control" else set())


@pytest.mark.parametrize("rule", [*DIRECT, "dfa_targets"])
def test_forward_weights_descend_the_local_losses_as_the_authors_scale_them(rule: str) -> None:
    rule_settings, parameters, feedback, batch = case(rule)
    directions = get_update_rule(rule).step(NETWORK, CE, rule_settings, parameters, feedback, batch).directions
    clean = forward(NETWORK, parameters, batch.images)
    output = -getattr(rule_settings, "step_size", 1.0) * (clean.logits.softmax(1) - batch.targets) / 4
    for layer in (1, 2, 3, 4):
        tracked = leaves(parameters)
        only = {
            name: tracked[name] if name in (f"weight{layer}", f"bias{layer}") else value
            for name, value in parameters.items()
        }
        difference = output if layer == 4 else output @ feedback[f"q{layer}"].T
        target = (clean.inputs[layer] if layer < 4 else clean.logits) + difference
        result = forward(NETWORK, only, batch.images)
        h = result.inputs[layer] if layer < 4 else result.logits
        # Convolutional layers: the mean over batch and units; others: the sum over units.
        (
            (h - target.detach()).square().mean() if layer <= 2 else (h - target.detach()).square().sum(1).mean()
        ).backward()
        for name in (f"weight{layer}", f"bias{layer}"):
            torch.testing.assert_close(directions[name], tracked[name].grad, rtol=1e-8, atol=1e-12)


def pictures(n: int, seed: int) -> FlatImages:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    pixels = torch.randint(0, 100, (n, 1, 8, 8), generator=generator)
    for index, label in enumerate(labels.tolist()):
        pixels[index, :, 2 * label : 2 * label + 2] += 120
    return FlatImages(pixels.flatten(1).to(torch.uint8), labels, 3, shape=(1, 8, 8))


def trained(rule: str, members: list[Member], /, **changes: object) -> Population:
    values: dict[str, object] = {
        "epochs": 6,
        "batch_size": 20,
        "hidden": [16],
        "convolutions": [4, 6],
        "activation": "tanh",
    }
    values |= {"loss": "cross_entropy", "initialisation": "xavier_normal", "validation_images": 60, "angle_images": 20}
    values |= {
        "optimizer": {"kind": "adam", "layer_rates": [1, 1, 0.5, 0.5], "layer_stabilities": [1e-9, 1e-9, 1e-8, 1e-8]}
    }
    if rule in DIRECT:
        values |= {
            "rule": {"step_size": 0.1, "sigma": 0.1},
            "feedback_optimizer": {"kind": "adam"},
            "feedback_learning_rate": 0.003,
        }
        values |= {"feedback_epochs": 3, "extra_feedback_epochs": 1}
    settings = parse(PopulationSettings, values | changes, "settings")
    return train_population(get_update_rule(rule), members, pictures(300, 0), pictures(60, 1), settings)


@pytest.mark.parametrize("rule", ["bp", *DIRECT, "dfa_targets"])
def test_all_of_table_3_learn_and_a_population_is_its_members(rule: str) -> None:
    members = [Member(0, 0.01), Member(1, 0.003)]
    together = trained(rule, members)
    assert float(together.best_score[0]) > 0.9
    alone = trained(rule, members[1:])
    for name, value in alone.parameters.items():
        torch.testing.assert_close(together.parameters[name][1], value[0], rtol=5e-3, atol=5e-4)


def test_layers_have_rates_of_their_own() -> None:
    parameters = {name: torch.ones(1, 3) for name in ("weight1", "weight2", "q1")}
    directions = {name: torch.ones(1, 3) for name in parameters}
    for kind in ("adam", "sgd"):
        chosen = parse(OptimizerSettings, {"kind": kind, "layer_rates": [0.1, 0.01]}, "optimizer")
        values = {name: value.clone() for name, value in parameters.items()}
        Optimizer(chosen).step(values, directions, torch.tensor([0.5]))
        moved = {name: float(1 - value[0, 0]) for name, value in values.items()}
        assert moved == {"weight1": pytest.approx(0.05), "weight2": pytest.approx(0.005), "q1": pytest.approx(0.5)}
    with pytest.raises(UserError, match="there is none for layer 2"):
        Optimizer(parse(OptimizerSettings, {"layer_rates": [0.1]}, "optimizer")).step(
            values, directions, torch.tensor([0.5])
        )


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (
            "dtp",
            {"rule": {"step_size": 0.1, "sigma": 0.1}},
            "DTP knows fully connected layers only; leave convolutions out",
        ),
        ("bp", {"dropout": 0.1}, "need fully connected layers"),
        ("bp", {"convolutions": [0]}, "convolutions.0 must be at least 1, not 0"),
        ("bp", {"trained_layers": [9]}, "some of the layers 1 to 4"),
    ],
)
def test_what_convolutions_do_not_go_with_is_explained(rule: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        trained(rule, [Member(0, 0.01)], **changes)


def test_flat_images_have_no_shape_to_convolve() -> None:
    with pytest.raises(UserError, match="convolutions need images with channels, height and width"):
        network_of(144, (7,), 3, "tanh", (3,), None)
    assert network_of(144, (7,), 3, "tanh") == Network((144, 7, 3), "tanh")
