"""PGD on the squared error in float64: what float32 hides from it, the same steps by hand, and models that cannot."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from creditflow import apply_rule
from creditflow.attacks.attack import Problem
from creditflow.attacks.judge import AttackResult, get_attack, run_attack
from creditflow.attacks.precision import in_float64
from creditflow.compute import randomness
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.labels import cross_entropies, squared_error
from creditflow.data.prepared import Subset
from helpers import small_model, subset

#: Attack -> the lowest value of a pixel that it allows.
LOWEST = {"pgd_mse_code": -1.0, "pgd_mse": 0.0}


def run(
    model: nn.Module, data: Subset, epsilons: list[float], name: str = "pgd_mse_code", **settings: object
) -> AttackResult:
    settings = {"steps": 40, "relative_step": 0.1} | settings
    chosen = parse(plugins.settings_class("attack", name), settings, name)
    images = torch.arange(len(data.labels))
    attack = get_attack(name)
    return run_attack(attack, chosen, model, data, images, epsilons, batch_size=100, seed=3, keep=len(images))


@pytest.mark.parametrize(
    ("gap", "hidden32", "hidden64"), [(30.0, False, False), (100.0, True, False), (900.0, True, True)]
)
def test_fgsm_has_the_same_setting(gap: float, hidden32: bool, hidden64: bool) -> None:
    model, data = confident(gap)
    for precision, hidden in (("float32", hidden32), ("float64", hidden64)):
        chosen = parse(plugins.settings_class("attack", "fgsm_mse"), {"precision": precision}, "fgsm_mse")
        result = run_attack(
            get_attack("fgsm_mse"), chosen, model, data, torch.arange(4), [0.25], batch_size=4, seed=3, keep=4
        )
        assert result.checks["zero_gradients"] == float(hidden) and result.correct.tolist() == [[hidden] * 4]
        assert result.kept is not None and result.kept.images.dtype == torch.float32


def confident(gap: float) -> tuple[nn.Module, Subset]:
    """A linear model of the mean of both halves of an image, and images whose logits differ by a gap."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).requires_grad_(False)
    halves = torch.zeros(2, 16)
    halves[0, :8], halves[1, 8:] = 1 / 8, 1 / 8
    model[1].weight.copy_(halves * gap / (100 / 255))
    model[1].bias.zero_()
    pixels = torch.full((4, 1, 4, 4), 50, dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    for image, label in zip(pixels.view(4, 2, 8), labels.tolist(), strict=True):
        image[label] = 150
    return model, Subset(pixels, labels, ("a", "b"), (0.0,), (1.0,))


@pytest.mark.parametrize("name", LOWEST)
@pytest.mark.parametrize(
    ("gap", "hidden32", "hidden64"), [(30.0, False, False), (100.0, True, False), (900.0, True, True)]
)
def test_a_gradient_that_float32_hides_is_a_number_in_float64(
    gap: float, hidden32: bool, hidden64: bool, name: str
) -> None:
    model, data = confident(gap)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for precision, hidden in (("float32", hidden32), ("float64", hidden64)):
        result = run(model, data, [0.25], name, precision=precision)
        assert result.checks["zero_gradients"] == float(hidden)
        # From the start 100 / 255 lie between the halves' means; a step back and forth of 0.25 closes it.
        assert result.correct.tolist() == [[hidden] * 4]
        assert result.queries_per_image == 40
        assert result.kept is not None and result.kept.images.dtype == torch.float32
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", LOWEST)
def test_the_steps_are_those_of_a_loop_in_numpy(name: str) -> None:
    """A linear model: the gradient of sum_c (p_c - y_c)^2 by hand, in float64, from the attack's own random start."""
    model, data = confident(3.0)
    epsilon, steps = 0.2, 7
    result = run(model, data, [epsilon], name, precision="float64", steps=steps, relative_step=0.15)
    weight = model[1].weight.double().numpy()
    clean = to_unit_interval(data.images).double().flatten(1).numpy()
    y = np.eye(2)[data.labels.numpy()]
    with randomness.global_seed("attack", 3):
        noise = torch.rand((4, 1, 4, 4), dtype=torch.float64).flatten(1).numpy()
    low, high = np.maximum(clean - epsilon, LOWEST[name]), np.minimum(clean + epsilon, 1)
    x = np.clip(clean + (2 * noise - 1) * epsilon, low, high)
    for _ in range(steps):
        z = x @ weight.T
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = 2 * p * (p - y)
        slope = (error - p * error.sum(1, keepdims=True)) @ weight
        x = np.clip(x + 0.15 * epsilon * np.sign(slope), low, high)
    assert result.kept is not None
    np.testing.assert_allclose(result.kept.images[0].flatten(1).numpy(), x, atol=1e-7)


@pytest.mark.parametrize("name", LOWEST)
def test_without_the_setting_nothing_is_converted(name: str) -> None:
    """The default is float32's own start and steps: to be told of it changes not a bit."""
    model, data = small_model(), subset(20, seed=1)
    first, second = run(model, data, [0.1], name), run(model, data, [0.1], name, precision="float32")
    exact = run(model, data, [0.1], name, precision="float64")
    assert first.kept is not None and second.kept is not None and exact.kept is not None
    assert torch.equal(first.kept.images, second.kept.images)
    assert not torch.equal(first.kept.images, exact.kept.images)


def test_a_view_with_feedback_weights_keeps_them() -> None:
    """brSF draws fresh weights at an update of W: the conversion must not look like one."""
    model, data = small_model(), subset(10, seed=1)
    view = apply_rule(model, "brsf", generator=torch.Generator().manual_seed(0))
    layers = [module for module in view.modules() if hasattr(module, "feedback_weight")]
    before = [layer.feedback_weight().clone() for layer in layers]
    run(view, data, [0.1], precision="float64")
    assert layers and all(
        torch.equal(layer.feedback_weight(), weight) for layer, weight in zip(layers, before, strict=True)
    )


class HalfHearted(nn.Module):
    """Computes in float32 whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x.flatten(1).float(), self.layer.weight.float())


class Stubborn(HalfHearted):
    """Has weights that are no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ torch.ones(16, 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            HalfHearted(),
            "the model computes in float32, though its weights and images are float64: a part of it converts",
        ),
        (Stubborn(), r"the model does not compute in float64 \(.*\); leave precision: float64 out"),
        (
            nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 2).half()),
            "precision: float64 needs weights of one type, not of float16 and float32; leave precision: float64 out",
        ),
    ],
)
def test_a_model_that_cannot_compute_in_float64_is_refused_in_one_line(model: nn.Module, message: str) -> None:
    types = [value.dtype for value in model.state_dict().values()]
    problem = Problem(model, torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64), loss=squared_error)
    with pytest.raises(UserError, match=message) as caught, in_float64(problem) as exact:
        exact.gradient_at(exact.images)
    assert "\n" not in str(caught.value)
    assert [value.dtype for value in model.state_dict().values()] == types


def test_an_unknown_precision_is_refused() -> None:
    model, data = confident(1.0)
    with pytest.raises(UserError, match="precision must be 'float32' or 'float64', not 'float16'"):
        run(model, data, [0.1], precision="float16")


@pytest.mark.parametrize(("dtype", "squared", "entropy"), [(torch.float32, 52, 104), (torch.float64, 373, 745)])
def test_the_gaps_from_which_gradients_are_exactly_zero(dtype: torch.dtype, squared: float, entropy: float) -> None:
    """Between the label's logit and nine equal ones: 2 exp(-2 g) and exp(-g) are zero below half of the least number.

    `least` is the logarithm of that half.
    """
    least = np.log(torch.finfo(dtype).smallest_normal) + np.log(torch.finfo(dtype).eps) - np.log(2)
    for loss, expected, formula in (
        (squared_error, squared, (np.log(2) - least) / 2),
        (cross_entropies, entropy, -least),
    ):
        low, high = 1.0, 2000.0
        for _ in range(50):
            gap = (low + high) / 2
            logits = torch.zeros(1, 10, dtype=dtype).index_fill_(1, torch.tensor([4]), gap).requires_grad_()
            (slope,) = torch.autograd.grad(loss(logits, torch.tensor([4])).sum(), logits)
            low, high = (low, gap) if bool((slope == 0).all()) else (gap, high)
        assert high == pytest.approx(formula, abs=1e-2)
        assert high == pytest.approx(expected, abs=0.5)
