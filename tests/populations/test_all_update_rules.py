"""What a population promises, for every update rule that there is: a new rule cannot be forgotten here."""

import io
import pickle
import re
from typing import Any

import pytest
import torch

from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.images import FlatImages
from creditflow.populations.network import Network
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import train_population

RULES = plugins.names("update_rule")

#: Settings that have no default in some rules.
NEEDED = {"step_size": 0.1, "sigma": 0.1, "width": 9}


def drawn(n: int, seed: int = 0) -> FlatImages:
    """Images (n, 12) whose brightest third tells which of three classes they are of."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    pixels = torch.randint(0, 120, (n, 12), generator=generator)
    for index, label in enumerate(labels.tolist()):
        pixels[index, label * 4 : (label + 1) * 4] += 100
    return FlatImages(pixels.to(torch.uint8), labels, 3)


def trained(rule: str, members: list[Member], /, n: int = 60, **changes: object) -> Population:
    values: dict[str, Any] = {"epochs": 2, "batch_size": 16, "hidden": [8, 7], "activation": "tanh"}
    values |= {"validation_images": 9, "loss": "cross_entropy"} | changes
    known = plugins.settings_class("update_rule", rule).model_fields
    values["rule"] = {name: value for name, value in NEEDED.items() if name in known and known[name].is_required()}
    settings = parse(PopulationSettings, values, "settings")
    return train_population(get_update_rule(rule), members, drawn(n), drawn(30, seed=1), settings)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_and_what_it_trained_can_be_pickled(rule: str) -> None:
    update_rule = get_update_rule(rule)
    assert pickle.loads(pickle.dumps(update_rule)).title == update_rule.title
    population = trained(rule, [Member(0, 0.01)])
    buffer = io.BytesIO()
    torch.save(population, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    for name, value in (population.parameters | population.feedback).items():
        assert torch.equal((again.parameters | again.feedback)[name], value)


@pytest.mark.parametrize("rule", RULES)
def test_a_member_trains_beside_others_as_it_does_alone(rule: str) -> None:
    members = [Member(0, 0.01), Member(1, 0.01), Member(1, 0.003)]
    together = trained(rule, members, precision="float64")
    for index, member in enumerate(members):
        alone = trained(rule, [member], precision="float64")
        for name, value in (alone.parameters | alone.feedback).items():
            torch.testing.assert_close((together.parameters | together.feedback)[name][index], value[0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 1, "n": 12, "validation_images": 3},
        {"batch_size": 1000},
        {"batch_size": 50},
        {"hidden": [6]},
        {"hidden": [6, 5, 4]},
        {"precision": "float64"},
    ],
    ids=["one image a batch", "one batch", "one image left over", "one hidden layer", "three", "float64"],
)
def test_batches_and_networks_of_all_sizes_train(rule: str, changes: dict[str, Any]) -> None:
    population = trained(rule, [Member(0, 0.001)], **changes)
    assert not population.diverged.any()
    dtype = torch.float64 if changes.get("precision") == "float64" else torch.float32
    for value in (population.parameters | population.feedback).values():
        assert value.dtype == dtype and value.isfinite().all()


@pytest.mark.parametrize("rule", RULES)
def test_layers_that_are_not_to_learn_stay_as_they_were(rule: str) -> None:
    start, end = (trained(rule, [Member(0, rate)], trained_layers=[1], select="last") for rate in (1e-30, 0.01))
    for name, value in end.parameters.items():
        if name not in ("weight1", "bias1"):
            assert torch.allclose(value, start.parameters[name], atol=1e-12), name
    assert not torch.allclose(end.parameters["weight1"], start.parameters["weight1"], atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_what_a_rule_cannot_do_is_one_line_which_is_the_same_for_all(rule: str) -> None:
    update_rule = get_update_rule(rule)
    if update_rule.dropout:
        assert not trained(rule, [Member(0, 0.001)], dropout=0.2).diverged.any()
    else:
        with pytest.raises(UserError, match=rf"^{re.escape(update_rule.title)} knows no dropout; leave it out$"):
            trained(rule, [Member(0, 0.001)], dropout=0.2)
    with pytest.raises(UserError, match="leave none to train on; lower validation_images"):
        trained(rule, [Member(0, 0.001)], validation_images=60)


@pytest.mark.parametrize("rule", ["fa", "dfa", "kp", "wm"])
def test_the_scale_of_feedback_multiplies_what_is_drawn(rule: str) -> None:
    """With a scale of 1 the variance is 2 / n."""
    update_rule, network = get_update_rule(rule), Network((12, 40, 30, 3), "linear")
    usual, half = (
        update_rule.init(
            network,
            parse(plugins.settings_class("update_rule", rule), {"scale": scale}, rule),
            torch.Generator().manual_seed(3),
        )
        for scale in (1, 0.5)
    )
    assert usual.keys() == half.keys() != set()
    assert all(torch.equal(half[name], value / 2) for name, value in usual.items())
    spread = usual["feedback2"].std() ** 2 * usual["feedback2"].shape[1]
    assert spread == pytest.approx(2, rel=0.3)
