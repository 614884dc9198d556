"""SAL, Kolen-Pollack and weight mirroring against the theory that their papers give, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from creditflow.core.errors import UserError
from creditflow.populations.losses import LOSSES
from creditflow.populations.network import Network, Parameters, initial_parameters
from creditflow.populations.optimizer_settings import OptimizerSettings
from creditflow.populations.optimizers import Optimizer
from creditflow.populations.rule import Batch, Update, get_update_rule
from creditflow.populations.spectra import effective_rank_of, singular_values

MSE = LOSSES["mse"]
CIRCUIT = get_update_rule("sal")


def batch_of(network: Network, n: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, network.widths[0], generator=generator, dtype=torch.float64)
    labels = torch.randint(0, network.widths[-1], (n,), generator=generator)
    return Batch(images, torch.nn.functional.one_hot(labels, network.widths[-1]).double())


def circuit(network: Network, **values: object) -> tuple[object, Parameters, Parameters]:
    generator = torch.Generator().manual_seed(1)
    chosen = CIRCUIT.parse_settings(values)
    return chosen, initial_parameters(network, "gaussian", generator), CIRCUIT.init(network, chosen, generator)


def sal(network: Network, rule_settings: object, parameters: Parameters, feedback: Parameters, batch: Batch) -> Update:
    return CIRCUIT.step(network, MSE, rule_settings, parameters, feedback, batch)


def identities(network: Network, feedback: Parameters, parameters: Parameters) -> Parameters:
    """V = Vb = I and Wb = W^T."""
    fixed: dict[str, Tensor] = {}
    for k in range(1, network.n_layers):
        eye = torch.eye(network.widths[k], dtype=torch.float64)
        fixed |= {f"v{k}": eye, f"v_bar{k}": eye.clone(), f"w_bar{k}": parameters[f"weight{k + 1}"].T.clone()}
    return feedback | fixed


@pytest.mark.parametrize("widths", [(5, 4, 3), (6, 5, 7, 4, 3)])
def test_with_identities_and_transposed_weights_sal_is_the_exact_gradient(widths: tuple[int, ...]) -> None:
    network = Network(widths)
    rule_settings, parameters, feedback = circuit(network, downstream_activation="relu_jacobian")
    batch = batch_of(network, 9)
    result = sal(network, rule_settings, parameters, identities(network, feedback, parameters), batch)
    exact = get_update_rule("bp").step(network, MSE, None, parameters, {}, batch)
    torch.testing.assert_close({name: result.directions[name] for name in exact.directions}, exact.directions)


def test_with_plastic_descending_weights_alone_it_is_kolen_and_pollack() -> None:
    """W - Wb^T shrinks as (1 - lambda)^t whatever the data, and the steps are those of the rule `kp`."""
    network, decay, rate = Network((6, 5, 4, 3)), 0.03, torch.tensor([0.05], dtype=torch.float64)
    rule_settings, parameters, feedback = circuit(
        network, plastic=["w", "w_bar"], downstream_activation="relu_jacobian"
    )
    feedback = feedback | {
        name: value for name, value in identities(network, feedback, parameters).items() if not name.startswith("w_bar")
    }
    theirs = parameters | {f"feedback{k + 1}": feedback[f"w_bar{k}"].T.clone() for k in range(1, network.n_layers)}
    ours = {name: value.clone()[None] for name, value in (parameters | feedback).items()}
    theirs = {name: value.clone()[None] for name, value in theirs.items()}
    start = {k: ours[f"weight{k + 1}"] - ours[f"w_bar{k}"].transpose(1, 2) for k in (1, 2)}
    optimizers = [Optimizer(OptimizerSettings(shrinkage=decay)) for _ in range(2)]
    for t in range(1, 31):
        batch = batch_of(network, 4, seed=t)
        alone = {name: value[0] for name, value in ours.items()}
        update = sal(network, rule_settings, alone, alone, batch).directions
        optimizers[0].step(ours, {name: value[None] for name, value in update.items()}, rate)
        alone = {name: value[0] for name, value in theirs.items()}
        matrices = {name: value for name, value in alone.items() if name.startswith("feedback")}
        update = get_update_rule("kp").step(network, MSE, None, alone, matrices, batch).directions
        optimizers[1].step(theirs, {name: value[None] for name, value in update.items()}, rate)
        for k, difference in start.items():
            torch.testing.assert_close(
                ours[f"weight{k + 1}"] - ours[f"w_bar{k}"].transpose(1, 2), (1 - decay) ** t * difference
            )
            torch.testing.assert_close(ours[f"w_bar{k}"].transpose(1, 2), theirs[f"feedback{k + 1}"])
            torch.testing.assert_close(ours[f"weight{k}"], theirs[f"weight{k}"])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    decay=st.floats(0.0, 0.2),
    kind=st.sampled_from(["identity", "relu", "tanh", "relu_jacobian"]),
)
def test_lemma_1_the_two_interstream_pathways_align_exponentially(seed: int, decay: float, kind: str) -> None:
    network = Network((5, 4, 6, 3))
    rule_settings, parameters, feedback = circuit(network, downstream=[7, 3], downstream_activation=kind)
    plastic = {name: value.clone()[None] for name, value in (parameters | feedback).items()}
    start = [plastic[f"v{k}"] - plastic[f"v_bar{k}"].transpose(1, 2) for k in (1, 2)]
    optimizer = Optimizer(OptimizerSettings(shrinkage=decay))
    for t in range(15):
        alone = {name: value[0] for name, value in plastic.items()}
        update = sal(network, rule_settings, alone, alone, batch_of(network, 3, seed + t)).directions
        optimizer.step(
            plastic, {name: value[None] for name, value in update.items()}, torch.tensor([0.01], dtype=torch.float64)
        )
    for k in (1, 2):
        difference = plastic[f"v{k}"] - plastic[f"v_bar{k}"].transpose(1, 2)
        torch.testing.assert_close(difference, (1 - decay) ** 15 * start[k - 1], rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("widths", "down"), [((5, 4, 3), [6]), ((5, 4, 6, 3, 4), [4, 9, 5])])
def test_theorem_1_at_stationarity_the_update_is_h_times_the_gradient(widths: tuple[int, ...], down: list[int]) -> None:
    """Vb = V^T (Lemma 1) and V_k W_{k+1}^T = Wb_k V_{k+1} (equation 27), V of full rank and e >= d; no gates, as if all
    units were open."""
    network = Network(widths, "linear")
    rule_settings, parameters, feedback = circuit(network, downstream=down)
    n = network.n_layers
    v = {k: feedback[f"v{k}"] for k in range(1, n)} | {n: torch.eye(widths[-1], dtype=torch.float64)}
    for k in range(1, n):
        feedback[f"v_bar{k}"] = v[k].T
        feedback[f"w_bar{k}"] = v[k] @ parameters[f"weight{k + 1}"].T @ torch.linalg.pinv(v[k + 1])
        torch.testing.assert_close(v[k] @ parameters[f"weight{k + 1}"].T, feedback[f"w_bar{k}"] @ v[k + 1])
    batch = batch_of(network, 8)
    result = sal(network, rule_settings, parameters, feedback, batch).directions
    exact = get_update_rule("bp").step(network, MSE, None, parameters, {}, batch).directions
    for k in range(1, n):
        h = feedback[f"v_bar{k}"] @ feedback[f"v_bar{k}"].T
        assert float(torch.linalg.eigvalsh(h).min()) > 0
        torch.testing.assert_close(result[f"weight{k}"], h @ exact[f"weight{k}"])
        assert float((result[f"weight{k}"] * exact[f"weight{k}"]).sum()) > 0  # so the loss falls (Proposition 1)
    torch.testing.assert_close(result[f"weight{n}"], exact[f"weight{n}"])
    measure = get_update_rule("sal").measure_batch
    assert measure is not None
    at_stationarity = measure(network, MSE, rule_settings, parameters, feedback, batch)["theorem_cosine"]
    feedback["v_bar1"] = -feedback["v_bar1"]  # H stays as it is, and what the first layer learns turns round
    turned = measure(network, MSE, rule_settings, parameters, feedback, batch)["theorem_cosine"]
    assert float(at_stationarity) == pytest.approx(1)
    assert float(turned) == pytest.approx((n - 3) / (n - 1))


def test_with_the_identity_downstream_the_gate_of_a_layers_own_units_is_missing() -> None:
    """Where the paper's theorem has D_u: with D_d = I a closed unit still gets an error, which backpropagation's does
    not."""
    network = Network((5, 6, 3))
    rule_settings, parameters, feedback = circuit(network)
    batch = batch_of(network, 1)
    result = sal(network, rule_settings, parameters, identities(network, feedback, parameters), batch).directions[
        "weight1"
    ]
    exact = get_update_rule("bp").step(network, MSE, None, parameters, {}, batch).directions["weight1"]
    closed = (exact == 0).all(1)
    assert bool(closed.any()) and bool((result[closed] != 0).any())
    torch.testing.assert_close(result[~closed], exact[~closed])


def pathways(network: Network, parameters: Parameters, kind: str) -> Parameters:
    """The paper's two cases in which H = Vb Vb^T is the identity and Wb carries W^T: V = I, and V a permutation."""
    generator, v, n = torch.Generator().manual_seed(5), {}, network.n_layers
    for k in range(1, n):
        width = network.widths[k]
        order = torch.arange(width) if kind == "identity" else torch.randperm(width, generator=generator)
        v[k] = torch.eye(width, dtype=torch.float64)[order]
    v[n] = torch.eye(network.widths[-1], dtype=torch.float64)
    named = {"v": lambda k: v[k], "v_bar": lambda k: v[k].T}
    named["w_bar"] = lambda k: v[k] @ parameters[f"weight{k + 1}"].T @ v[k + 1].T
    return {f"{name}{k}": matrix(k) for name, matrix in named.items() for k in range(1, n)}


def autograds(parameters: Parameters, batch: Batch) -> Parameters:
    """The gradients of the mean loss |y - h_n|^2 of the plain ReLU network, by autograd."""
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    h, last = batch.images, len(leaves) // 2
    for k in range(1, last + 1):
        z = torch.nn.functional.linear(h, leaves[f"weight{k}"], leaves[f"bias{k}"])
        h = z.relu() if k < last else z
    (h - batch.targets).square().sum(1).mean().backward()
    gradients = {name: value.grad for name, value in leaves.items()}
    return {name: value for name, value in gradients.items() if value is not None}


@pytest.mark.parametrize("kind", ["identity", "permutation"])
@pytest.mark.parametrize(
    ("widths", "gate"), [((5, 6, 3), "identity"), ((5, 6, 3), "relu_jacobian"), ((6, 5, 7, 4, 3), "relu_jacobian")]
)
def test_with_both_masks_the_update_is_theorem_1s_gradient(widths: tuple[int, ...], gate: str, kind: str) -> None:
    """Above one hidden layer D_d must be the Jacobian, too: it stands where the gradient passes a layer on its way."""
    network = Network(widths)
    rule_settings, parameters, _ = circuit(network, downstream_activation=gate, upstream_mask=True)
    batch = batch_of(network, 9, seed=1)
    result = sal(network, rule_settings, parameters, pathways(network, parameters, kind), batch).directions
    exact = autograds(parameters, batch)
    assert exact.keys() == parameters.keys()
    for name, gradient in exact.items():
        torch.testing.assert_close(result[name], gradient, rtol=1e-12, atol=1e-14)


def test_the_upstream_mask_closes_what_is_closed_and_changes_no_other_pathway() -> None:
    network = Network((5, 6, 7, 3))
    unmasked, parameters, feedback = circuit(network, downstream=[8, 9])
    masked, _, _ = circuit(network, downstream=[8, 9], upstream_mask=True)
    batch = batch_of(network, 1)
    before, after = (sal(network, chosen, parameters, feedback, batch).directions for chosen in (unmasked, masked))
    z = batch.images[0] @ parameters["weight1"].T + parameters["bias1"]
    assert bool((z < 0).any()) and bool((z > 0).any())
    assert not after["weight1"][z < 0].any() and not after["bias1"][z < 0].any()
    assert torch.equal(after["weight1"][z > 0], before["weight1"][z > 0])
    for name in ("v1", "w_bar1", "v_bar1", "v2", "w_bar2", "v_bar2", "weight3", "bias3"):
        assert torch.equal(after[name], before[name])


def test_equations_5_to_8_written_out() -> None:
    network = Network((3, 2, 2))
    rates = {"rate_v": 2.0, "rate_w_bar": 3.0, "rate_v_bar": 5.0}
    rule_settings, p, f = circuit(network, downstream=[4], **rates)
    batch = batch_of(network, 2)
    expected = {name: torch.zeros_like(value) for name, value in (p | f).items()}
    for x, y in zip(batch.images, batch.targets, strict=True):
        z1 = p["weight1"] @ x + p["bias1"]
        h = z1.clamp(min=0)
        u2 = -2 * (p["weight2"] @ h + p["bias2"] - y)
        u1 = f["w_bar1"] @ u2
        expected["weight1"] -= torch.outer(f["v_bar1"] @ u1, x) / 2
        expected["bias1"] -= f["v_bar1"] @ u1 / 2
        expected["weight2"] -= torch.outer(u2, h) / 2
        expected["bias2"] -= u2 / 2
        expected["v1"] -= 2.0 * torch.outer(u1, h) / 2
        expected["w_bar1"] -= 3.0 * torch.outer(f["v1"] @ h, u2) / 2
        expected["v_bar1"] -= 5.0 * torch.outer(h, u1) / 2
    torch.testing.assert_close(sal(network, rule_settings, p, f, batch).directions, expected)
    pre, _, _ = circuit(network, downstream=[4], v_bar_learns_from="pre", **rates)
    z = batch.images @ p["weight1"].T + p["bias1"]
    u = -2 * (z.clamp(min=0) @ p["weight2"].T + p["bias2"] - batch.targets) @ f["w_bar1"].T
    torch.testing.assert_close(sal(network, pre, p, f, batch).directions["v_bar1"], -5.0 * z.T @ u / 2)


@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_decay_is_inside_or_outside_the_rate(kind: str) -> None:
    values, nothing = {"w": torch.ones(1, 2, 2)}, {"w": torch.zeros(1, 2, 2)}
    chosen = OptimizerSettings(weight_decay=0.1) if kind == "inside" else OptimizerSettings(shrinkage=0.1)
    Optimizer(chosen).step(values, nothing, torch.tensor([0.5]))
    assert float(values["w"].mean()) == pytest.approx(0.95 if kind == "inside" else 0.9)


def test_pathways_that_do_not_learn_have_no_direction() -> None:
    network = Network((3, 4, 4, 2))
    rule_settings, parameters, feedback = circuit(network, plastic=["w", "v_bar"])
    names = sal(network, rule_settings, parameters, feedback, batch_of(network, 2)).directions
    assert {name.rstrip("0123456789") for name in names} == {"weight", "bias", "v_bar"}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_the_effective_rank_is_roy_and_vetterlis(rows: int, columns: int, seed: int) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values = torch.linalg.svdvals(matrix).numpy()
    assert float(effective_rank_of(singular_values(matrix))) == pytest.approx(
        float(torch.tensor(entropy(values / values.sum())).exp()), rel=1e-9
    )


def test_the_effective_rank_of_special_matrices() -> None:
    assert float(effective_rank_of(singular_values(3 * torch.eye(5)))) == pytest.approx(5)
    assert float(effective_rank_of(singular_values(torch.ones(4, 7)))) == pytest.approx(1, abs=1e-3)
    assert float(effective_rank_of(singular_values(torch.zeros(3, 3)))) == 0


def test_mirroring_turns_feedback_to_the_weights_direction() -> None:
    network, rule = Network((4, 20, 15, 5)), get_update_rule("wm")
    rule_settings = rule.parse_settings({"rate": 1000.0})
    generator = torch.Generator().manual_seed(0)
    parameters = initial_parameters(network, "he_uniform", generator, biases=False)
    feedback = {name: value[None] for name, value in rule.init(network, rule_settings, generator).items()}
    optimizer, rate = Optimizer(OptimizerSettings()), torch.tensor([0.01], dtype=torch.float64)

    def cosines() -> list[float]:
        pairs = [
            (value.flatten(), parameters[name.replace("feedback", "weight")].flatten())
            for name, value in feedback.items()
        ]
        return [float(torch.cosine_similarity(ours, theirs, 0)) for ours, theirs in pairs]

    assert max(map(abs, cosines())) < 0.4
    nothing = torch.empty(0)
    for _ in range(1500):
        noise = tuple(
            torch.rand(64, width, generator=generator, dtype=torch.float64)
            for width in rule.noise_widths(network, rule_settings)
        )
        alone = {name: value[0] for name, value in feedback.items()}
        assert rule.feedback_step is not None
        directions = rule.feedback_step(
            network, MSE, rule_settings, parameters, alone, Batch(nothing, nothing, (), noise)
        )
        optimizer.step(feedback, {name: value[None] for name, value in directions.items()}, rate)
    assert min(cosines()) > 0.95


def test_what_is_connected_and_what_learns_is_the_papers_table_2() -> None:
    everything = ("uu", "dd", "ud", "du")
    published = {
        "bp": (("uu",), ("uu",)),
        "fa": (("uu", "dd"), ("uu",)),
        "wm": (("uu", "dd"), ("uu", "dd")),
        "sal": (everything, everything),
    }
    for name, pathways in published.items():
        rule = get_update_rule(name)
        assert (rule.connected, rule.plastic) == pathways


def test_narrow_descending_streams_are_warned_of() -> None:
    network = Network((5, 4, 6, 3))
    rule_settings = CIRCUIT.parse_settings({"downstream": [4, 5]})
    (line,) = CIRCUIT.warnings(network, rule_settings)
    assert (
        "hidden layer 2: 5 descending units for 6 ascending ones" in line and "Theorem 1" in line and "\n" not in line
    )
    assert CIRCUIT.warnings(network, CIRCUIT.parse_settings({})) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"plastic": ["w", "v_bra"]}, "plastic.1 must be 'w', 'v', 'w_bar' or 'v_bar', not 'v_bra'"),
        ({"plastic": ["v"]}, "plastic must have w among its pathways, or nothing is learned"),
        ({"downstream_activation": "sine"}, "must be 'identity', 'relu_jacobian', 'relu' or 'tanh', not 'sine'"),
        ({"v_bar_learns_from": "both"}, "v_bar_learns_from must be 'post' or 'pre', not 'both'"),
        ({"rate_v": -1}, "rate_v must be at least 0, not -1"),
        ({"downstream": [0]}, "downstream.0 must be at least 1, not 0"),
    ],
)
def test_mistakes_are_explained(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CIRCUIT.parse_settings(values)


def test_downstream_widths_must_be_one_for_each_hidden_layer() -> None:
    with pytest.raises(UserError, match="downstream has 1 widths, the network has 2 hidden layers"):
        CIRCUIT.init(Network((3, 4, 4, 2)), CIRCUIT.parse_settings({"downstream": [4]}), torch.Generator())
