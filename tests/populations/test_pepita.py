"""PEPITA's adversarial training as its paper wired it, against equations in numpy, and how its softmax saturates."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from creditflow.compute import randomness
from creditflow.core.effects import check_effects
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.labels import squared_error
from creditflow.populations.images import FlatImages
from creditflow.populations.network import Network
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import get_update_rule
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.stability import Stability
from creditflow.populations.start import draw_start
from creditflow.populations.training import PopulationRun, train_population

Matrix = NDArray[np.float64]
FGSM = {"epsilon": 0.1, "steps": 1, "step": 0.1, "random_start": False, "lowest": -1}


def digits(n: int) -> FlatImages:
    """The first of scikit-learn's handwritten digits, 8x8 pixels."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images * 255 / 16).round().to(torch.uint8)
    return FlatImages(pixels[:n], torch.tensor(labels[:n]), 10)


def settings(**changes: object) -> PopulationSettings:
    values = {"hidden": [9], "epochs": 1, "batch_size": 64, "select": "last", "validation_images": 0}
    values |= {"adversary": FGSM} | changes
    return parse(PopulationSettings, values, "settings")


def trained(members: list[Member], data: FlatImages, **changes: object) -> Population:
    return train_population(get_update_rule("pepita"), members, data, data, settings(**changes))


# --- the equations ------------------------------------------------------------------------------------------------


def activities(weights: list[Matrix], biases: list[Matrix], x: Matrix) -> list[Matrix]:
    """h_0, ..., h_L of Algorithm 1: ReLU in hidden layers, softmax at the output."""
    h = [x]
    for w, b in zip(weights, biases, strict=True):
        z = h[-1] @ w.T + b
        h.append(np.maximum(z, 0))
    p = np.exp(z - z.max(1, keepdims=True))
    return [*h[:-1], p / p.sum(1, keepdims=True)]


def fgsm(weights: list[Matrix], biases: list[Matrix], x: Matrix, y: Matrix) -> Matrix:
    """x + 0.1 sign of the gradient of sum_c (p_c - y_c)^2, clipped at -1 and 1."""
    h = activities(weights, biases, x)
    slope = 2 * h[-1] * (h[-1] - y)
    slope -= h[-1] * slope.sum(1, keepdims=True)
    for w, below in zip(weights[::-1], h[-2::-1], strict=True):
        slope = (slope @ w) * (below > 0 if below is not x else 1)
    return np.clip(x + 0.1 * np.sign(slope), -1, 1)


def pepita(
    weights: list[Matrix], biases: list[Matrix], f: Matrix, x: Matrix, y: Matrix, presynaptic: Matrix | None
) -> tuple[list[Matrix], list[Matrix], Matrix]:
    """The directions of W_1, ..., W_L and b_1, ..., b_L, with the second pass's error at the output, and x + F e."""
    h = activities(weights, biases, x)
    x_mod = x + (h[-1] - y) @ f.T
    h_mod = activities(weights, biases, x_mod)
    errors = [first - second for first, second in zip(h[1:-1], h_mod[1:-1], strict=True)] + [h_mod[-1] - y]
    inputs = [x_mod if presynaptic is None else presynaptic, *h_mod[1:-1]]
    n = len(x)
    return [e.T @ i / n for e, i in zip(errors, inputs, strict=True)], [e.sum(0) / n for e in errors], x_mod


@pytest.mark.parametrize("hidden", [[9], [9, 8]])
@pytest.mark.parametrize("wiring", ["own", "natural"])
def test_a_batch_of_adversarial_training_is_the_equations(hidden: list[int], wiring: str) -> None:
    """A step on natural images, a step on adversarial ones, momentum of 0.9; two and three layers, in float64."""
    data, members = digits(50), [Member(3, 0.2), Member(1, 0.05)]
    rule = {"output_error": "second", "adversarial_presynaptic": wiring, "feedback_scale": 1.0}
    changes = {"hidden": hidden, "batch_size": 50, "adversarial_training": True, "precision": "float64", "rule": rule}
    population = trained(members, data, optimizer={"momentum": 0.9}, **changes)
    update_rule, network = get_update_rule("pepita"), Network((64, *hidden, 10))
    layers = range(1, len(hidden) + 2)
    for index, member in enumerate(members):
        start, feedback = draw_start(update_rule, update_rule.parse_settings(rule), network, settings(), member.seed)
        weights, biases = ([start[f"{kind}{layer}"].numpy() for layer in layers] for kind in ("weight", "bias"))
        f = feedback["projection"].numpy()
        order = torch.randperm(50, generator=randomness.generator("population", "order", member.seed))
        x, y = data.pixels[order].double().numpy() / 255, np.eye(10)[data.labels[order].numpy()]
        adversarial = fgsm(weights, biases, x, y)
        dw, db, x_mod = pepita(weights, biases, f, x, y, None)
        weights = [w - member.learning_rate * d for w, d in zip(weights, dw, strict=True)]
        biases = [b - member.learning_rate * d for b, d in zip(biases, db, strict=True)]
        dw2, db2, _ = pepita(weights, biases, f, adversarial, y, x_mod if wiring == "natural" else None)
        weights = [w - member.learning_rate * (0.9 * a + b) for w, a, b in zip(weights, dw, dw2, strict=True)]
        biases = [v - member.learning_rate * (0.9 * a + b) for v, a, b in zip(biases, db, db2, strict=True)]
        for layer in layers:
            for kind, expected in (("weight", weights), ("bias", biases)):
                got = population.parameters[f"{kind}{layer}"][index].numpy()
                np.testing.assert_allclose(got, expected[layer - 1], rtol=1e-11, atol=1e-13)


def test_w1_f_grows_with_the_papers_wiring_and_shrinks_with_its_own_input() -> None:
    """450 pairs of steps on handwritten digits, trained with FGSM images: 25 batches, 18 epochs."""
    growth = {}
    for wiring in ("natural", "own"):
        rule = {"output_error": "second", "adversarial_presynaptic": wiring}
        changes: dict[str, Any] = {"hidden": [100], "epochs": 18, "optimizer": {"momentum": 0.9}}
        members, data = [Member(0, 0.1)], digits(64 * 25)
        result = trained(members, data, adversarial_training=True, stability_images=20, rule=rule, **changes)
        rows = result.history[0]
        growth[wiring] = [row["loop_growth"] for row in rows]
        assert rows[-1]["train_accuracy"] > 0.9
    assert growth["natural"][-1] > 1.03 > 0.97 > growth["own"][-1]
    assert growth["natural"][-1] > growth["natural"][9] > 1 > growth["own"][9] > growth["own"][-1]


# --- what is measured ---------------------------------------------------------------------------------------------


def test_what_is_measured_of_saturation_is_autograds_and_numpys() -> None:
    """One network at four scales of its last layer, so that gaps lie below, between and above both thresholds."""
    data, rule, network = digits(40), get_update_rule("pepita"), Network((64, 9, 10))
    chosen = settings(stability_images=30)
    rule_settings = rule.parse_settings({})
    start, feedback = draw_start(rule, rule_settings, network, chosen, 0)
    scales = torch.tensor([1.0, 60.0, 300.0, 5000.0])
    ones = torch.ones(4)
    parameters = {name: (value[None] * ones.view(4, *[1] * value.dim())).float() for name, value in start.items()}
    measure = Stability(rule, rule_settings, network, chosen, data)
    state = {"projection": feedback["projection"].expand(4, -1, -1).float()}
    measure.begin(parameters, state)
    for name in ("weight2", "bias2"):
        parameters[name] = parameters[name] * scales.view(4, *[1] * (parameters[name].dim() - 1))
    parameters["weight1"] = parameters["weight1"] * torch.tensor([1.0, 2.0, 1.0, 1.0]).view(4, 1, 1)
    rows = measure.measured(parameters, state)
    assert rows["loop_growth"].tolist() == pytest.approx([1, 2, 1, 1], rel=1e-6)
    shares = {}
    for dtype in (torch.float32, torch.float64):
        for index in range(4):
            member = {name: value[index].to(dtype) for name, value in parameters.items()}
            x = (data.pixels[:30].to(dtype) / 255).requires_grad_()
            hidden = torch.relu(x @ member["weight1"].T + member["bias1"])
            logits = hidden @ member["weight2"].T + member["bias2"]
            (slope,) = torch.autograd.grad(squared_error(logits, data.labels[:30]).sum(), x)
            shares[dtype, index] = float((slope == 0).all(1).double().mean())
            two = logits.detach().sort(1).values[:, -2:]
            gaps = (two[:, 1] - two[:, 0]).sort().values
            assert float(rows["median_gap"][index]) == pytest.approx(float(gaps[14]), rel=1e-5)
    for dtype in (torch.float32, torch.float64):
        found = rows[f"zero_gradients_{str(dtype).removeprefix('torch.')}"].tolist()
        assert found == pytest.approx([shares[dtype, index] for index in range(4)], abs=1.01 / 30)
    assert rows["zero_gradients_float32"][0] == rows["zero_gradients_float64"][0] == 0
    assert rows["zero_gradients_float32"][3] > 0.5 and rows["zero_gradients_float64"][3] > 0
    assert bool((rows["zero_gradients_float32"] >= rows["zero_gradients_float64"]).all())


def test_measuring_changes_nothing_and_goes_on_where_a_run_was_resumed() -> None:
    data, members = digits(128), [Member(0, 0.1), Member(0, 0.2)]
    changes: dict[str, Any] = {"epochs": 2, "dropout": 0.1, "adversarial_training": True}
    plain, measured = trained(members, data, **changes), trained(members, data, stability_images=10, **changes)
    for name, value in plain.parameters.items():
        assert torch.equal(value, measured.parameters[name])
    new = {"loop_growth", "median_gap", "zero_gradients_float32", "zero_gradients_float64"}
    for before, after in zip(plain.history, measured.history, strict=True):
        assert [{name: row[name] for name in row if name not in new} for row in after] == before
        assert all(new <= row.keys() for row in after)
    chosen = settings(stability_images=10, **changes)
    first = PopulationRun(get_update_rule("pepita"), members, data, data, chosen)
    first.epoch()
    second = PopulationRun(get_update_rule("pepita"), members, data, data, chosen)
    second.load(first.state())
    second.epoch()
    assert second.population.history == measured.history


def test_a_loop_that_is_zero_does_not_grow() -> None:
    data = digits(64)
    result = trained([Member(0, 0.1)], data, stability_images=10, rule={"feedback_scale": 0.0})
    assert result.history[0][0]["loop_growth"] == 1 and int(result.diverged[0]) == 0


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rule": {"adversarial_presynaptic": "neutral"}}, "adversarial_presynaptic must be 'own' or 'natural', not"),
        ({"adversary": None, "stability_images": 5}, "curve_images and stability_images need an adversary; add"),
        ({"stability_images": -1}, "stability_images must be at least 0, not -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_in_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained([Member(0, 0.1)], digits(64), **changes)
    assert "\n" not in str(caught.value)


def test_a_wiring_without_adversarial_training_has_no_effect() -> None:
    with pytest.raises(UserError, match=r"rule\.adversarial_presynaptic has no effect without adversarial_training"):
        check_effects([settings(curve_images=1, rule={"adversarial_presynaptic": "natural"})], "here")
