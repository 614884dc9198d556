"""The target-propagation family against its paper's theory (Meulemans et al., 2020) and autograd, in float64."""

import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from creditflow.compute import randomness
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.populations.images import FlatImages
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, forward, initial_parameters, tanh, tanh_change
from creditflow.populations.population import Member, Population
from creditflow.populations.rule import Batch, get_update_rule
from creditflow.populations.rules.gnt import jacobians
from creditflow.populations.settings import PopulationSettings
from creditflow.populations.training import PopulationRun, train_population

CE = LOSSES["cross_entropy"]
FAMILY = ["dtp", "dtpdrl", "ddtp_linear", "ddtp_control", "ddtp_rhl"]
#: Rules whose feedback learns by the difference reconstruction loss or DTP's, each written out below.
WIDTHS = (7, 6, 5, 4, 3)


def case(rule: str, network: Network, n: int = 4, **changes: object) -> tuple[object, Parameters, Parameters, Batch]:
    generator = torch.Generator().manual_seed(0)
    values = (
        {"step_size": 0.1, "sigma": 0.3} | ({"width": 9} if rule == "ddtp_rhl" else {}) | changes
        if rule != "gnt"
        else changes
    )
    chosen = get_update_rule(rule).parse_settings(values)
    parameters = initial_parameters(network, "xavier_normal", generator)
    for name, value in parameters.items():
        if name.startswith("bias"):
            value.normal_(std=0.2, generator=generator)
    feedback = get_update_rule(rule).init(network, chosen, generator)
    for name, value in feedback.items():
        if name.startswith("c"):
            value.normal_(std=0.2, generator=generator)
    images = torch.randn(n, network.widths[0], generator=generator, dtype=torch.float64)
    targets = torch.nn.functional.one_hot(
        torch.randint(0, network.widths[-1], (n,), generator=generator), network.widths[-1]
    ).double()
    noise = tuple(torch.randn(n, width, generator=generator, dtype=torch.float64) for width in network.widths[1:-1])
    return chosen, parameters, feedback, Batch(images, targets, (), noise)


def layer_up(p: Parameters, k: int, h: Tensor, last: int) -> Tensor:
    z = h @ p[f"weight{k}"].T + p[f"bias{k}"]
    return z if k == last else z.tanh()


def reconstruction_loss(
    rule: str, network: Network, rule_settings: object, p: Parameters, q: Parameters, batch: Batch, i: int
) -> Tensor:
    """The loss of Q_i as the paper and its code write it, without any differences in closed form."""
    last, sigma = network.n_layers, rule_settings.sigma  # type: ignore[attr-defined]
    h = {0: batch.images}
    for k in range(1, last + 1):
        h[k] = layer_up(p, k, h[k - 1], last)
    noisy = h[i] + sigma * batch.noise[i - 1]
    y = {i: noisy}
    for k in range(i + 1, last + 1):
        y[k] = layer_up(p, k, y[k - 1], last)

    def g(k: int, value: Tensor) -> Tensor:
        frozen = {name: value if name in (f"q{i}", f"c{i}") else value.detach() for name, value in q.items()}
        if rule == "ddtp_rhl" and k < last - 1:
            value = (value @ frozen["r"].T + frozen["r_bias"]).tanh()
            value = torch.cat([value, h[k]], 1) if rule_settings.recurrent else value  # type: ignore[attr-defined]
        z = value @ frozen[f"q{k}"].T + frozen.get(f"c{k}", torch.zeros(1).double())
        return z if rule in ("ddtp_linear", "ddtp_control") else z.tanh()

    if rule == "dtp":
        return (g(i, y[i + 1]) - noisy).square().mean() / max(sigma, 0.02) ** 2
    if rule == "ddtp_control":
        return (g(i, y[last]) - noisy).square().mean()
    if rule == "dtpdrl":
        u = y[last]
        for k in range(last - 1, i - 1, -1):
            u = g(k, u) + h[k] - g(k, h[k + 1])
        return (u - noisy).square().mean() / sigma**2
    return (g(i, y[last]) + h[i] - g(i, h[last]) - noisy).square().mean() / sigma**2


@pytest.mark.parametrize(("rule", "more"), [*((rule, {}) for rule in FAMILY), ("ddtp_rhl", {"recurrent": True})])
def test_feedback_descends_its_loss_exactly(rule: str, more: dict[str, object]) -> None:
    network = Network(WIDTHS, "tanh")
    rule_settings, p, q, batch = case(rule, network, **more)
    step = get_update_rule(rule).feedback_step
    assert step is not None
    directions = step(network, CE, rule_settings, p, q, batch)
    for i in range(1, network.n_layers):
        leaves = {name: value.clone().requires_grad_() for name, value in q.items()}
        reconstruction_loss(rule, network, rule_settings, p, leaves, batch, i).backward()
        for name in (f"q{i}", f"c{i}"):
            if name in q:
                torch.testing.assert_close(directions[name], leaves[name].grad, rtol=1e-8, atol=1e-12)
    assert set(directions) == {name for name in q if name[0] in "qc"}


@pytest.mark.parametrize(("rule", "more"), [*((rule, {}) for rule in FAMILY), ("ddtp_rhl", {"recurrent": True})])
def test_targets_are_the_papers_and_the_output_layer_follows_the_gradient(rule: str, more: dict[str, object]) -> None:
    network = Network(WIDTHS, "tanh")
    rule_settings, p, q, batch = case(rule, network, **({"last_hidden_bias": True} if rule == "ddtp_linear" else more))
    last, n = network.n_layers, len(batch.images)
    h = {0: batch.images}
    for k in range(1, last + 1):
        h[k] = layer_up(p, k, h[k - 1], last)
    target = {last: h[last] - rule_settings.step_size * (h[last].softmax(1) - batch.targets) / n}  # type: ignore[attr-defined]

    def g(k: int, value: Tensor) -> Tensor:
        if rule == "ddtp_rhl" and k < last - 1:
            value = (value @ q["r"].T + q["r_bias"]).tanh()
            value = torch.cat([value, h[k]], 1) if rule_settings.recurrent else value  # type: ignore[attr-defined]
        z = value @ q[f"q{k}"].T + q.get(f"c{k}", torch.zeros(1).double())
        return z if rule in ("ddtp_linear", "ddtp_control") else z.tanh()

    for k in range(last - 1, 0, -1):
        above = k + 1 if rule in ("dtp", "dtpdrl") else last
        target[k] = g(k, target[above]) + h[k] - g(k, h[above])
    directions = get_update_rule(rule).step(network, CE, rule_settings, p, q, batch).directions
    for k in range(1, last + 1):
        slope = torch.ones_like(h[k]) if k == last else 1 - h[k].square()
        t = 2 * slope * (h[k] - target[k])
        torch.testing.assert_close(directions[f"weight{k}"], t.T @ h[k - 1] / n)
        torch.testing.assert_close(directions[f"bias{k}"], t.mean(0))
    exact = get_update_rule("bp").step(network, CE, None, p, {}, batch).directions
    torch.testing.assert_close(directions[f"weight{last}"], 2 * rule_settings.step_size / n * exact[f"weight{last}"])  # type: ignore[attr-defined]


def test_dfa_is_ddtp_linear_with_feedback_that_stays() -> None:
    network = Network(WIDTHS, "tanh")
    rule_settings, p, q, batch = case("ddtp_linear", network, step_size=1.0)
    linear = get_update_rule("ddtp_linear").step(network, CE, rule_settings, p, q, batch).directions
    rule = get_update_rule("dfa_targets")
    ours = rule.step(network, CE, rule.parse_settings({}), p, q, batch).directions
    torch.testing.assert_close(ours, {name: value for name, value in linear.items() if not name.startswith("q")})
    drawn = rule.init(network, rule.parse_settings({}), torch.Generator().manual_seed(3))
    torch.testing.assert_close(
        drawn, get_update_rule("ddtp_linear").init(network, rule_settings, torch.Generator().manual_seed(3))
    )


def test_gauss_newton_targets_are_the_pseudo_inverse_of_autograds_jacobian() -> None:
    network = Network(WIDTHS, "tanh")
    _, p, _, batch = case("gnt", network)
    for damping in (0.0, 0.1):
        rule_settings = get_update_rule("gnt").parse_settings({"damping": damping})
        result = forward(network, p, batch.images)
        directions = get_update_rule("gnt").step(network, CE, rule_settings, p, {}, batch).directions
        e = (result.logits.softmax(1) - batch.targets) / len(batch.images)
        for k, jacobian in jacobians(network, p, result).items():

            def above(h: Tensor, k: int = k) -> Tensor:
                for layer in range(k + 1, network.n_layers + 1):
                    h = layer_up(p, layer, h, network.n_layers)
                return h

            expected = torch.zeros_like(directions[f"weight{k}"])
            for b in range(len(batch.images)):
                j = torch.autograd.functional.jacobian(above, result.inputs[k][b])
                torch.testing.assert_close(jacobian[b], j)
                inverse = (
                    torch.linalg.pinv(j)
                    if damping == 0
                    else j.T @ torch.linalg.inv(j @ j.T + damping * torch.eye(3).double())
                )
                step = -inverse @ e[b]
                if damping == 0:  # Theorem 5: of all steps that move the output to its target, the shortest
                    torch.testing.assert_close(j @ step, -e[b])
                    null = torch.linalg.svd(j).Vh[3:]
                    assert float((null @ step).abs().max()) < 1e-12
                expected += torch.outer(-2 * (1 - result.inputs[k][b] ** 2) * step, result.inputs[k - 1][b]) / len(
                    batch.images
                )
            torch.testing.assert_close(directions[f"weight{k}"], expected)


@pytest.mark.parametrize("damping", [0.3, 1e-9])
def test_the_damping_is_not_rounded_to_float32(damping: float) -> None:
    network = Network(WIDTHS, "tanh")
    _, p, _, batch = case("gnt", network)
    rule_settings = get_update_rule("gnt").parse_settings({"damping": damping})
    directions = get_update_rule("gnt").step(network, CE, rule_settings, p, {}, batch).directions
    activity = forward(network, p, batch.images)
    error = CE.slope(activity.logits, batch.targets) / 4
    w, h = p["weight4"], activity.hidden[2]  # J of the last hidden layer is W_4
    moved = error @ torch.linalg.inv(w @ w.T + damping * torch.eye(3, dtype=torch.float64)) @ w
    taught = 2 / 4 * moved * (1 - h**2)
    torch.testing.assert_close(directions["weight3"], taught.T @ activity.hidden[1], rtol=1e-11, atol=0)


def test_theorem_2_with_an_invertible_network_targets_are_block_diagonal_gauss_newton() -> None:
    """One image, all widths alike: with Q_i the inverse of J_i, target propagation is the Gauss-Newton step of each
    layer's activations."""
    network = Network((5, 4, 4, 4, 4), "tanh")
    rule_settings, p, q, batch = case("ddtp_linear", network, n=1, last_hidden_bias=True)
    result = forward(network, p, batch.images)
    for k, jacobian in jacobians(network, p, result).items():
        q[f"q{k}"] = torch.linalg.inv(jacobian[0])
    ours = get_update_rule("ddtp_linear").step(network, CE, rule_settings, p, q, batch).directions
    exact = get_update_rule("gnt").step(network, CE, get_update_rule("gnt").parse_settings({}), p, {}, batch).directions
    for name, value in exact.items():
        torch.testing.assert_close(ours[name], rule_settings.step_size * value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_theorem_4_the_difference_reconstruction_loss_is_least_at_the_damped_pseudo_inverse(decay: float) -> None:
    """A linear network, noise whose empirical covariance is the identity: at J^T (J J^T + lambda I)^-1 the gradient is
    the decay's."""
    network = Network((5, 6, 4, 3), "linear")
    rule_settings, p, q, _ = case("ddtp_linear", network)
    n, generator = 12, torch.Generator().manual_seed(1)
    noise = tuple(
        torch.linalg.qr(torch.randn(n, width, generator=generator, dtype=torch.float64)).Q * math.sqrt(n)
        for width in (6, 4)
    )
    batch = Batch(torch.randn(n, 5, generator=generator, dtype=torch.float64), torch.zeros(n, 3).double(), (), noise)
    for k, jacobian in jacobians(network, p, forward(network, p, batch.images)).items():
        j = jacobian[0]
        damping = decay * j.shape[1] / 2  # the loss is a mean over units, the decay is not
        q[f"q{k}"] = j.T @ torch.linalg.inv(j @ j.T + damping * torch.eye(3).double())
    step = get_update_rule("ddtp_linear").feedback_step
    assert step is not None
    for name, gradient in step(network, CE, rule_settings, p, q, batch).items():
        torch.testing.assert_close(gradient, -decay * q[name], rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), damping=st.sampled_from([0.0, 0.1, 10.0]), n=st.integers(1, 9))
def test_theorem_6_in_a_linear_network_the_update_is_within_90_degrees_of_the_gradient(
    seed: int, damping: float, n: int
) -> None:
    """For any batch; in networks that are not linear it need not be (seed 78, damping 1e-4, one image)."""
    network = Network(WIDTHS, "linear")
    generator = torch.Generator().manual_seed(seed)
    p = initial_parameters(network, "xavier_normal", generator)
    labels = torch.randint(0, 3, (n,), generator=generator)
    batch = Batch(
        torch.randn(n, 7, generator=generator, dtype=torch.float64), torch.nn.functional.one_hot(labels, 3).double()
    )
    rule_settings = get_update_rule("gnt").parse_settings({"damping": damping})
    ours = get_update_rule("gnt").step(network, CE, rule_settings, p, {}, batch).directions
    exact = get_update_rule("bp").step(network, CE, None, p, {}, batch).directions
    for name, gradient in exact.items():
        assert float((ours[name] * gradient).sum()) > 0


def test_figure_2s_ratio_is_zero_for_exact_gauss_newton_targets_of_one_image() -> None:
    """The part of the update of W_2 that leaves the output where it is: none for Gauss-Newton targets, most of it for
    random feedback."""
    network = Network((6, 6, 6, 2), "linear")
    rule_settings, p, q, batch = case("ddtp_linear", network, n=1)

    def output(weight: Tensor) -> Tensor:
        h = batch.images @ p["weight1"].T + p["bias1"]
        return ((h @ weight.T + p["bias2"]) @ p["weight3"].T + p["bias3"])[0]

    null = torch.linalg.svd(torch.autograd.functional.jacobian(output, p["weight2"]).flatten(1)).Vh[2:]

    def ratio(rule: str, rule_settings: object, feedback: Parameters) -> float:
        flat = (
            get_update_rule(rule)
            .step(network, LOSSES["mse"], rule_settings, p, feedback, batch)
            .directions["weight2"]
            .flatten()
        )
        return float((null @ flat).norm() / flat.norm())

    assert ratio("gnt", get_update_rule("gnt").parse_settings({}), {}) < 1e-12
    assert ratio("ddtp_linear", rule_settings, q) > 0.3


@settings(max_examples=100, deadline=None)
@given(z=st.floats(-4, 4), log_delta=st.floats(-9, 1), sign=st.sampled_from([-1, 1]))
def test_changes_of_tanh_are_exact_however_small(z: float, log_delta: float, sign: int) -> None:
    x, d = torch.tensor([z]), torch.tensor([sign * 10**log_delta])
    exact = math.sinh(float(d)) / (math.cosh(float(x)) * math.cosh(float(x) + float(d)))
    t, tau = math.tanh(z), math.tanh(float(d))
    lost = 2**-24 / (1 - abs(t)) + 2**-24 / (1 + t * tau)  # by rounding t, and the denominator
    assert float(tanh_change(x.tanh(), d)) == pytest.approx(exact, rel=1e-6 + 2 * lost)


def test_changes_of_saturated_units_are_finite() -> None:
    t, delta = (
        torch.tensor([1.0, -1.0, 1 - 2**-24, 0.0]),
        torch.tensor([-1e30, -100.0, -9.0, -1e-30, 0.0, 1e-30, 9.0, 100.0, 1e30]),
    )
    result = tanh_change(t[:, None], delta)
    assert bool(((result + t[:, None]).abs() <= 1 + 1e-6).all()), result


@pytest.fixture(params=[True, False], ids=["by expm1", "PyTorch's tanh"])
def either_tanh(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("creditflow.populations.network.mkl_is_held_back", lambda: request.param)
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_is_torchs(either_tanh: None, dtype: torch.dtype) -> None:
    z = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-30, 30, 601), -torch.logspace(-30, 30, 601)]).to(
        dtype
    )
    torch.testing.assert_close(tanh(z), z.tanh(), rtol=8 * torch.finfo(dtype).eps, atol=0)
    assert tanh(torch.tensor(math.nan)).isnan()


@settings(max_examples=50, deadline=None)
@given(lead=st.floats(0, 22), right=st.booleans())
def test_cross_entropy_is_exact_where_float32_would_read_zero(lead: float, right: bool) -> None:
    logits = torch.tensor([[lead, 0.0, -1.0]])
    targets = torch.tensor([[1.0, 0, 0]] if right else [[0, 1.0, 0]])
    exact = logits.double().requires_grad_()
    value = -(exact.log_softmax(1) * targets).sum()
    value.backward()
    assert float(CE.value(logits, targets)) == pytest.approx(float(value.detach()), rel=1e-4)
    assert exact.grad is not None
    torch.testing.assert_close(CE.slope(logits, targets).double(), exact.grad, rtol=1e-4, atol=1e-20)


# --- training ----------------------------------------------------------------------------------------------------


def pictures(n: int, seed: int) -> FlatImages:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    pixels = torch.randint(0, 120, (n, 12), generator=generator)
    for index, label in enumerate(labels.tolist()):
        pixels[index, label * 4 : label * 4 + 4] += 100
    return FlatImages(pixels.to(torch.uint8), labels, 3)


def trained(rule: str, members: list[Member], /, **changes: object) -> Population:
    rule_values = {"step_size": 0.1, "sigma": 0.1} | ({"width": 30} if rule == "ddtp_rhl" else {})
    values: dict[str, object] = {
        "epochs": 12,
        "batch_size": 16,
        "hidden": [12, 12],
        "activation": "tanh",
        "loss": "cross_entropy",
        "angle_images": 40,
    }
    values |= {
        "initialisation": "xavier_normal",
        "validation_images": 60,
        "optimizer": {"kind": "adam"},
        "rule": rule_values,
    }
    values |= {
        "feedback_optimizer": {"kind": "adam"},
        "feedback_learning_rate": 0.002,
        "feedback_epochs": 2,
        "extra_feedback_epochs": 1,
    }
    values |= changes
    settings = parse(PopulationSettings, values, "settings")
    return train_population(get_update_rule(rule), members, pictures(300, 0), pictures(60, 1), settings)


@pytest.mark.parametrize("rule", FAMILY)
def test_every_member_of_the_family_learns(rule: str) -> None:
    result = trained(rule, [Member(0, 0.01)])
    assert float(result.best_score[0]) > 0.9
    assert result.history[0][-1]["update_angle"] < 90


@pytest.mark.parametrize("rule", FAMILY)
def test_a_population_of_three_is_three_populations_of_one(rule: str) -> None:
    members = [Member(0, 0.01), Member(1, 0.003), Member(0, 0.03)]
    together = trained(rule, members, epochs=2)
    for index, member in enumerate(members):
        alone = trained(rule, [member], epochs=2)
        for name, value in (alone.parameters | alone.feedback).items():
            torch.testing.assert_close(
                (together.parameters | together.feedback)[name][index], value[0], rtol=2e-3, atol=1e-4
            )


def test_feedback_learns_in_its_own_epochs_and_the_forward_weights_stay() -> None:
    before = trained("ddtp_linear", [Member(0, 1e-30)], epochs=1, feedback_epochs=0, extra_feedback_epochs=0)
    after = trained("ddtp_linear", [Member(0, 1e-30)], epochs=1, feedback_epochs=20)
    torch.testing.assert_close(before.parameters, after.parameters)
    starts = initial_parameters(before.network, "xavier_normal", randomness.generator("population", "weights", 0))
    torch.testing.assert_close(
        {name: value[0].double() for name, value in after.parameters.items()}, starts, rtol=1e-6, atol=1e-7
    )
    # The feedback's direction comes nearer to the gradient's.
    assert after.history[0][0]["update_angle"] < before.history[0][0]["update_angle"] - 5


def test_angles_layer_by_layer_to_the_gradient_and_to_gauss_newton() -> None:
    result = trained("dtp", [Member(0, 0.01)], epochs=1, layer_angles=True, dampings=[0.0, 1e6]).history[0][-1]
    for layer in (1, 2):
        # J^T (J J^T + damping I)^-1 e is J^T e / damping, along the gradient, where damping is large.
        assert result[f"angle_gnt_layer{layer}_damping1e+06"] == pytest.approx(
            result[f"angle_bp_layer{layer}"], abs=0.05
        )
        assert abs(result[f"angle_gnt_layer{layer}_damping0"] - result[f"angle_bp_layer{layer}"]) > 1
    none = {
        "feedback_optimizer": None,
        "feedback_learning_rate": None,
        "feedback_epochs": 0,
        "extra_feedback_epochs": 0,
    }
    result = trained(
        "gnt", [Member(0, 0.01)], epochs=1, layer_angles=True, dampings=[0.1], rule={"damping": 0.1}, **none
    ).history[0][-1]
    assert max(result[f"angle_gnt_layer{layer}_damping0.1"] for layer in (1, 2)) < 0.1 < result["angle_bp_layer1"]
    with pytest.raises(UserError, match="layer_angles needs angle_images"):
        trained("dtp", [Member(0, 0.01)], layer_angles=True, angle_images=0)
    with pytest.raises(UserError, match=r"dampings\.0 must be at least 0, not -1"):
        trained("dtp", [Member(0, 0.01)], dampings=[-1.0])


def test_a_member_that_diverges_takes_no_angle_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    none = {
        "feedback_optimizer": None,
        "feedback_learning_rate": None,
        "feedback_epochs": 0,
        "extra_feedback_epochs": 0,
    }
    plain = none | {
        "rule": {"damping": 0.0},
        "optimizer": {"kind": "sgd"},
        "epochs": 2,
        "layer_angles": True,
        "activation": "linear",
    }
    members = [Member(0, 0.01), Member(1, 1e30)]
    result = trained("gnt", members, **plain)
    alone = trained("gnt", members[:1], **plain)
    assert int(result.diverged[1]) > 0 and not int(result.diverged[0])
    assert result.history[0][-1]["angle_bp_layer1"] == pytest.approx(alone.history[0][-1]["angle_bp_layer1"], abs=0.5)

    def failing(*_: object, **__: object) -> Tensor:
        raise torch.linalg.LinAlgError("did not converge")  # type: ignore[attr-defined]

    monkeypatch.setattr(torch.linalg, "pinv", failing)
    with pytest.raises(
        UserError,
        match=r"GNT: no pseudo-inverse of J J\^T at hidden layer 2 \(did not converge\); set a damping above 0",
    ):
        trained("gnt", members[:1], **plain)


def test_the_last_hidden_layer_has_no_bias_in_the_authors_linear_method() -> None:
    result = trained("ddtp_linear", [Member(0, 0.01)], epochs=1)
    assert bool((result.parameters["bias2"] == 0).all()) and bool((result.parameters["bias1"] != 0).any())


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("dtp", {"rule": {"step_size": 0.1}}, "sigma is missing"),
        ("dtp", {"rule": {"step_size": 0.1, "sigma": 0}}, "settings of rule DTP: sigma must be above 0, not 0"),
        ("dtpdrl", {"rule": {"step_size": -1, "sigma": 0.1}}, "step_size must be above 0, not -1"),
        ("ddtp_rhl", {"rule": {"step_size": 0.1, "sigma": 0.1, "width": 0}}, "width must be at least 1, not 0"),
        ("gnt", {"rule": {"damping": -1}}, "damping must be at least 0, not -1"),
        ("bp", {"rule": {}}, "BP has no feedback to train in epochs of its own"),
        ("dtp", {"feedback_learning_rate": 0}, "feedback_learning_rate must be above 0, not 0"),
        (
            "dtp",
            {"feedback_optimizer": {"kind": "lion"}},
            "feedback_optimizer.kind must be 'sgd' or 'adam', not 'lion'",
        ),
    ],
)
def test_mistakes_are_explained(rule: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        trained(rule, [Member(0, 0.1)], **changes)
    assert "\n" not in str(caught.value)


def test_what_is_measured_or_taught_beside_it_changes_no_batch_and_no_noise() -> None:
    """Training draws from streams of its own: feedback epochs, and angles, which take noise too, leave them where they
    are."""
    seen = [trained("ddtp_linear", [Member(0, 0.01)], epochs=3, angle_images=images) for images in (0, 40)]
    for name, value in (seen[0].parameters | seen[0].feedback).items():
        assert torch.equal(value, (seen[1].parameters | seen[1].feedback)[name]), name
    # At a feedback rate of nearly 0 the epochs of feedback leave no trace but in the streams.
    still = {"epochs": 3, "feedback_learning_rate": 1e-30}
    with_epochs, without = (
        trained("ddtp_linear", [Member(0, 0.01)], **still, feedback_epochs=n, extra_feedback_epochs=n) for n in (2, 0)
    )
    for name, value in with_epochs.parameters.items():
        torch.testing.assert_close(value, without.parameters[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("what", ["measured", "feedback"])
def test_a_member_that_breaks_after_the_last_step_is_marked(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    plain = PopulationRun.measure

    def broken(run: PopulationRun) -> dict[str, Tensor]:
        result = plain(run)
        if run.population.epoch == 2:
            if what == "measured":
                result["update_angle"][1] = torch.nan
            else:
                run.population.feedback["q1"][1] = torch.inf
        return result

    monkeypatch.setattr(PopulationRun, "measure", broken)
    result = trained("ddtp_linear", [Member(0, 0.01), Member(1, 0.01)], epochs=3)
    assert not int(result.diverged[0]) and int(result.diverged[1]) == 2 * 15  # 240 images in 15 steps
    assert [len(history) for history in result.history] == [3, 1] and int(result.best_epoch[1]) == 1
