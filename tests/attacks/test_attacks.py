"""Attacks against plain foolbox, closed forms and their own promises."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import eagerpy as ep
import foolbox
import numpy as np
import pyautoattack
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from creditflow import apply_rule, feedback_state, load_model, save_model
from creditflow.attacks import guards
from creditflow.attacks.attack import Attack, Candidates, Problem, perturbation_size
from creditflow.attacks.foolbox_adapter import starting_points
from creditflow.attacks.judge import Helpers, choose_images, get_attack, run_attack
from creditflow.compute import randomness
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import NoSettings, parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.labels import logits_ratio
from creditflow.data.prepared import Subset
from creditflow.records.guards import fired
from creditflow.stages.attacking import attacker_view
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

EPSILONS = [0.0, 0.01, 0.05, 0.2]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, nn.Module, Subset]:
    """A model that frSF trained, the view with its feedback weights, and images it has not seen."""
    model, data = small_model(), subset()
    state, _ = train(
        model,
        "frsf",
        TrainingData(data, data),
        TrainingSettings(epochs=4, batch_size=10, learning_rate=0.01),
        Streams("test", 0),
    )
    return model, apply_rule(model, "frsf", state=state), subset(40, seed=1)


#: Every attack at a budget of milliseconds.
CHEAP: dict[str, dict[str, object]] = {
    "fgsm": {},
    "pgd": {},
    "pgd_mse": {"steps": 3},
    "pgd_mse_code": {"steps": 3},
    "fgsm_mse": {},
    "pgd_eot": {"draws": 2},
    "tpgd": {"steps": 3},
    "transfer": {"steps": 3},
    "apgd_ce": {"steps": 5},
    "apgd_dlr": {"steps": 5},
    "apgd_targeted": {"steps": 3, "targets": 2},
    "fab": {"steps": 3},
    "square": {"queries": 10},
    "few_pixel": {"generations": 2, "population": 10},
    "apgd_scaled": {"steps": 5},
    "pgd_smoothed": {"steps": 4, "points": 2, "relative_step": 0.3},
    "cascade": {"transfer": {"steps": 3}, "apgd_scaled": {"steps": 5}, "square": {"queries": 10}},
    "fab_l2": {"steps": 3},
    "fmn_linf": {"steps": 5},
    "fmn_l2": {"steps": 5},
    "ddn": {"steps": 5},
    "boundary": {"steps": 20},
    "hopskipjump": {"steps": 1, "initial_evaluations": 5},
}


def sizes(name: str) -> list[float]:
    return {"linf": EPSILONS, "l2": [0.1, 1.0, 3.0], "l0": [1.0, 3.0]}[get_attack(name).norm]


def test_every_attack_is_in_these_tests() -> None:
    assert set(CHEAP) == set(plugins.names("attack"))


def run(  # type: ignore[no-untyped-def]
    name: str,
    model: nn.Module,
    data: Subset,
    epsilons: Sequence[float] = EPSILONS,
    batch_size: int = 100,
    helpers=None,
    **parameters: object,
):
    attack = get_attack(name)
    if attack.uses_surrogate and helpers is None:
        helpers = Helpers({"twin": model})
    return run_attack(
        attack,
        parse(plugins.settings_class("attack", name), parameters, name),
        model,
        data,
        torch.arange(len(data.labels)),
        epsilons,
        batch_size=batch_size,
        seed=3,
        helpers=helpers,
    )


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("gradient", ["exact", "feedback"])
def test_gradient_attacks_equal_plain_foolbox_image_by_image(
    trained, name: str, random_start: bool, gradient: str
) -> None:  # type: ignore[no-untyped-def]
    model, view, data = trained
    attacked = model if gradient == "exact" else view
    ours = run(name, attacked, data, random_start=random_start)
    attacked.eval()
    reference = (
        foolbox.attacks.LinfFastGradientAttack(random_start=random_start)
        if name == "fgsm"
        else foolbox.attacks.LinfPGD(rel_stepsize=1 / 3, steps=5, random_start=random_start)
    )
    torch.manual_seed(randomness.derive_seed("attack", 3))
    fmodel = foolbox.PyTorchModel(attacked, bounds=(0, 1), device="cpu")
    images = to_unit_interval(data.images)
    _, clipped, fooled = reference(fmodel, images, data.labels, epsilons=EPSILONS)
    assert torch.equal(ours.correct, ~fooled)
    for size, adversarial in zip(ours.perturbation, clipped, strict=True):
        torch.testing.assert_close(size, (adversarial - images).abs().amax((1, 2, 3)))
    assert 0 < ours.correct.float().mean() < 1


def test_batches_change_nothing_without_random_start(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    assert torch.equal(run("pgd", model, data, batch_size=7).correct, run("pgd", model, data).correct)


def test_the_feedback_attacker_steps_along_the_feedback_gradient(trained) -> None:  # type: ignore[no-untyped-def]
    model, view, data = trained
    model.eval(), view.eval()
    images = to_unit_interval(data.images)
    directions = []
    for attacked in (model, view):
        x = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(attacked(x), data.labels)
        expected = torch.autograd.grad(loss, x)[0].sign()
        problem = Problem(attacked, images, data.labels)
        step = (
            get_attack("fgsm").propose(problem, [0.001], plugins.settings_class("attack", "fgsm")()).images[0] - images
        )
        inside = (images > 0.001) & (images < 0.999)
        assert torch.equal(step.sign()[inside], expected[inside])
        directions.append(expected)
    agreement = (directions[0] == directions[1]).float().mean()
    assert 0.3 < agreement < 0.95  # two different gradients of one and the same function


def test_for_backpropagation_both_gradients_are_one(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    assert torch.equal(run("pgd", model, data).correct, run("pgd", apply_rule(model, "bp"), data).correct)


class Linear(nn.Module):
    """Two-class linear classifier with logits (0, w.x + b)."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([torch.zeros_like(score), score], 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**20), epsilon=st.floats(0.001, 0.3), name=st.sampled_from(["fgsm", "pgd", "pgd_mse"]))
def test_on_a_linear_classifier_robust_accuracy_is_the_closed_form(seed: int, epsilon: float, name: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(9, generator=generator)
    # Pixels far from 0 and 1, so that the box does not shorten the step.
    images = torch.randint(100, 156, (50, 1, 3, 3), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 2, (50,), generator=generator)
    x = to_unit_interval(images)
    # The L-infinity ball moves the score by at most epsilon |w|_1.
    score = x.flatten(1).double() @ weight.double()
    margin = torch.where(labels == 1, score, -score) - epsilon * weight.double().abs().sum()
    epsilon_fits = bool(((x - epsilon) > 0).all() and ((x + epsilon) < 1).all())
    data = Subset(images, labels, ("0", "1"), (0.0,), (1.0,))
    correct = run(name, Linear(weight, 0.0), data, [epsilon]).correct[0]
    decided = margin.abs() > 1e-5
    assert epsilon_fits
    assert torch.equal(correct[decided], (margin > 0)[decided])


@pytest.mark.parametrize("name", sorted(CHEAP))
def test_an_attack_leaves_the_model_as_it_found_it(trained, name: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    model.train()
    model.head.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    n = 5 if name == "few_pixel" else 40
    few = Subset(data.images[:n], data.labels[:n], data.class_names, data.mean, data.std)
    run(name, small_model(n_classes=5) if name == "apgd_targeted" else model, few, sizes(name), **CHEAP[name])
    assert model.training
    assert [p.requires_grad for p in model.head.parameters()] == [False, False]
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert all(
        torch.equal(before[key], tensor) for key, tensor in model.state_dict().items()
    )  # batch-norm statistics too
    assert torch.equal(rng, torch.get_rng_state())
    model.head.requires_grad_(True)


@pytest.mark.parametrize("name", ["boundary", "hopskipjump"])
def test_decision_attacks_find_adversarial_images_without_gradients(trained, name: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    budget = {"boundary": {"steps": 300}, "hopskipjump": {"steps": 5, "initial_evaluations": 20}}[name]
    result = run(name, model, data, [0.1, 1.0, 3.0, 20.0], **budget)
    assert result.failed == 0
    assert result.distance is not None
    robust = result.correct.float().mean(1)
    assert torch.equal(result.correct[0] & ~result.clean_correct, torch.zeros_like(result.clean_correct))
    assert robust[0] > 0.8
    assert robust[-1] == 0
    assert torch.equal(result.distance == 0, ~result.clean_correct)
    assert bool((result.distance[result.clean_correct] < 6).all())  # as close as the nearest other image, or closer
    assert 20 < result.queries_per_image < 1000


def test_hopskipjumps_direction_has_unit_length_for_each_image_of_a_batch(trained) -> None:  # type: ignore[no-untyped-def]
    from creditflow.attacks.methods.hopskipjump import _PerImage

    model, _, data = trained
    images, labels = ep.astensor(to_unit_interval(data.images)), data.labels

    def fooled(x: ep.Tensor) -> ep.Tensor:
        return ep.astensor(model.eval()(x.raw).argmax(1) != labels)

    directions = []
    for kind in (_PerImage, foolbox.attacks.HopSkipJumpAttack):
        torch.manual_seed(0)
        with torch.no_grad():
            directions.append(
                kind(constraint="l2")
                .approximate_gradients(fooled, images, 20, ep.ones(images, len(labels)))
                .raw.flatten(1)
            )
    ours, theirs = directions
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(labels)))
    torch.testing.assert_close(nn.functional.cosine_similarity(ours, theirs), torch.ones(len(labels)))
    assert theirs.norm().item() == pytest.approx(1, rel=1e-4)  # one norm for the whole batch: why ours exists


def test_an_image_without_starting_point_is_counted_and_stays_correct() -> None:
    data = subset(12)
    constant = Linear(torch.zeros(144), 2.0)  # says 1 to everything
    data = Subset(data.images, torch.ones(12, dtype=torch.int64), ("a", "b"), (0.0,), (1.0,))
    result = run("boundary", constant, data, [1.0], steps=5)
    assert result.failed == 12
    assert bool(result.correct.all())
    assert bool(result.distance.isinf().all())  # type: ignore[union-attr]


def test_starting_points_are_the_nearest_images_with_another_prediction(trained) -> None:  # type: ignore[no-untyped-def]
    from creditflow.attacks.attack import Pool

    model, _, data = trained
    images = to_unit_interval(data.images)
    with torch.no_grad():
        predictions = model.eval()(images).argmax(1)
    starts, found = starting_points(Problem(model, images, data.labels), Pool(data, predictions))
    for index in range(len(images)):
        others = images[predictions != data.labels[index]]
        nearest = (others - images[index]).flatten(1).norm(dim=1).min()
        assert found[index]
        assert (starts[index] - images[index]).norm().item() == pytest.approx(nearest.item(), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("cheat", "message"),
    [
        (lambda images: (images + 0.2).clamp(0, 1), "exceeded epsilon"),
        (lambda images: images - 1, "outside"),
        (lambda images: images * float("nan"), "outside"),
    ],
)
def test_an_attack_that_breaks_its_bounds_is_caught(trained, cheat, message: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    attack = Attack("linf", True, lambda problem, epsilons, _: Candidates([cheat(problem.images) for _ in epsilons]))
    with pytest.raises(RuntimeError, match=message):
        run_attack(attack, NoSettings(), model, data, torch.arange(5), [0.1], batch_size=5, seed=0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
)
def test_perturbation_size_is_the_norm_over_all_pixels(seed: int, shape: tuple[int, ...]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for n in range(shape[0]):
        assert perturbation_size(delta, "linf")[n].item() == pytest.approx(delta[n].abs().max().item())
        assert perturbation_size(delta, "l2")[n].item() == pytest.approx(
            delta[n].square().sum().sqrt().item(), rel=1e-5
        )


def test_the_attacked_images_are_fixed_and_do_not_repeat() -> None:
    data = subset()
    chosen = choose_images(data, 20)
    assert torch.equal(chosen, choose_images(data, 20))
    assert len(set(chosen.tolist())) == 20
    with pytest.raises(UserError, match="lower `images`"):
        choose_images(data, 61)


def test_settings_of_an_attack_are_checked() -> None:
    pgd = plugins.settings_class("attack", "pgd")
    for values, message in [
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 2_000_000_000}, "steps must be at most 1000000, not 2000000000"),
        ({"steps": 2.5}, "steps must be an integer, not 2.5"),
        ({"steps": True}, "steps must be an integer, not True"),
        ({"relative_step": -1}, "relative_step must be above 0, not -1"),
        ({"random_start": 1}, "random_start must be true or false, not 1"),
    ]:
        with pytest.raises(UserError, match=message):
            parse(pgd, values, "pgd")


# --- the suite beyond FGSM and PGD --------------------------------------------------------------------------------


def seed_of_first_call() -> int:
    """The seed that the first epsilon's run of a pyautoattack attack gets in `run`."""
    torch.manual_seed(randomness.derive_seed("attack", 3))
    return int(torch.randint(2**31, ()))


@pytest.fixture(scope="module")
def five_classes() -> tuple[nn.Module, Subset]:
    model, data = small_model(5, size=18), subset(100, 5, size=18)
    train(
        model,
        "bp",
        TrainingData(data, data),
        TrainingSettings(epochs=4, batch_size=10, learning_rate=0.01),
        Streams("test", 0),
    )
    return model.eval(), subset(30, 5, size=18, seed=1)


@pytest.mark.parametrize(
    ("name", "theirs", "parameters"),
    [
        ("apgd_ce", "apgd-ce", {"steps": 30}),
        ("apgd_dlr", "apgd-dlr", {"steps": 30}),
        ("apgd_targeted", "apgd-t", {"steps": 30, "targets": 4}),
        ("fab", "fab", {"steps": 20}),
        ("fab", "fab-t", {"steps": 20, "targets": 4}),
        ("square", "square", {"queries": 200}),
    ],
)
def test_autoattacks_parts_equal_its_own_evaluation_image_by_image(
    five_classes: tuple[nn.Module, Subset], name: str, theirs: str, parameters: dict[str, int]
) -> None:
    model, data = five_classes
    epsilon, seed = 0.15 if name == "square" else 0.06, seed_of_first_call()
    ours = run(name, model, data, [epsilon], **parameters)
    evaluation = pyautoattack.AutoAttack(
        model, norm="Linf", eps=epsilon, seed=seed, version="custom", attacks=[theirs], device=torch.device("cpu")
    )
    for part in (evaluation.apgd, evaluation.apgd_targeted, evaluation.fab, evaluation.square):
        part.n_restarts = 1
    evaluation.apgd_targeted.n_target_classes = evaluation.fab.n_target_classes = 4
    if name.startswith("apgd"):
        assert plugins.settings_class("attack", name)().steps == evaluation.apgd.n_iter == 100
    evaluation.apgd.n_iter = evaluation.apgd_targeted.n_iter = 30
    evaluation.fab.n_iter, evaluation.square.n_queries = 20, 200
    evaluation.square.rescale_schedule = True  # to the budget; theirs is made for one of 10,000 queries
    images = to_unit_interval(data.images)
    adversarial, _ = evaluation.run_standard_evaluation(images, data.labels, batch_size=100)
    with torch.no_grad():
        survived = model(adversarial).argmax(1) == data.labels
    assert torch.equal(ours.correct[0], survived)
    assert 0 < survived.float().mean() < ours.clean_correct.float().mean()


def test_fab_finds_the_nearer_class_whatever_the_largest_epsilon_is() -> None:
    """The second class is likelier but further away; it must not end the search for the third."""

    class Three(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
            return torch.stack([torch.zeros_like(a), (a - 0.5) - 0.08, 50 * ((b - 0.5) - 0.02)], 1)

    data = Subset(torch.full((1, 1, 1, 2), 128, dtype=torch.uint8), torch.tensor([0]), ("a", "b", "c"), (0.0,), (1.0,))
    for epsilons in ([0.03], [0.03, 0.2]):
        result = run("fab", Three(), data, epsilons, steps=20, targets=2)
        assert not bool(result.correct[0][0]), epsilons
        assert result.distance is not None
        assert float(result.distance[0]) < 0.03


class Random(nn.Module):
    """A smooth random function of any image; inputs (N, C, H, W), outputs (N, 5)."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(n, 16, generator=generator) * 3 / n**0.5)
        self.second = nn.Parameter(torch.randn(16, 5, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh((x.flatten(1) - 0.5) @ self.first) @ self.second


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(CHEAP)),
    shape=st.tuples(st.integers(1, 3), st.integers(5, 9), st.integers(5, 9)),
    scale=st.floats(0.001, 0.9),
    seed=st.integers(0, 1000),
)
def test_every_attack_keeps_its_norm_and_the_pixel_range(
    name: str, shape: tuple[int, ...], scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (8, *shape), generator=generator, dtype=torch.uint8)
    images[:3][torch.rand((3, *shape), generator=generator) < 0.5] = 0  # corners of the pixel range too
    model = Random(images[0].numel(), generator)
    with torch.no_grad():
        labels = model(to_unit_interval(images)).argmax(1)
    labels[-1] = (labels[-1] + 1) % 5  # one image that is wrong from the start
    data = Subset(images, labels, tuple("abcde"), (0.0,) * shape[0], (1.0,) * shape[0])
    epsilons = {"linf": [0.0, scale / 2, scale], "l2": [scale, 4 * scale], "l0": [0.0, 1.0, 3.0]}[get_attack(name).norm]
    result = run(
        name, model, data, epsilons, **CHEAP[name]
    )  # raises if a pixel leaves [0, 1] or a perturbation its norm
    for size, epsilon in zip(result.perturbation, epsilons, strict=True):
        assert float(size.max()) <= epsilon * (1 + 1e-5) + 1e-6
    assert not bool(result.correct[0][-1]) or get_attack(name).norm != "l0"


def test_epsilons_share_the_gradient_at_the_image_itself(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    assert run("fgsm", model, data, [0.01 * k for k in range(7)]).queries_per_image == 1
    assert run("pgd", model, data, [0.0, 0.1, 0.2]).queries_per_image == 1 + 2 * 4  # 0 needs no step
    assert run("pgd", model, data, [0.1, 0.2], random_start=True).queries_per_image == 2 * 5


def test_tpgd_needs_no_label_and_ascends_the_divergence(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    model.eval().requires_grad_(False)
    images = to_unit_interval(data.images)
    proposals = []
    for labels in (data.labels, (data.labels + 1) % 3):
        torch.manual_seed(0)
        proposals.append(
            get_attack("tpgd")
            .propose(Problem(model, images, labels), [0.05], plugins.settings_class("attack", "tpgd")())
            .images[0]
        )
    assert torch.equal(*proposals)

    def divergence(x: Tensor) -> Tensor:
        clean, moved = model(images).softmax(1).double(), model(x).softmax(1).double()
        return (clean * (clean.log() - moved.log())).sum(1)

    noise = images + 0.05 * (2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 1).sign()
    assert bool((divergence(proposals[0]) > divergence(noise.clamp(0, 1))).float().mean() > 0.95)
    model.requires_grad_(True)


def test_the_expected_gradient_is_the_mean_over_draws() -> None:
    from creditflow.attacks.methods.pgd_eot import Mean

    model, data = small_model(), subset(20)
    state, _ = train(
        model,
        "brsf",
        TrainingData(data, data),
        TrainingSettings(epochs=2, batch_size=10, learning_rate=0.01),
        Streams("test", 0),
    )
    view, images = apply_rule(model, "brsf", state=state).eval(), to_unit_interval(data.images)
    model.eval()
    views = [apply_rule(model, "brsf", generator=torch.Generator().manual_seed(k)) for k in range(5)]

    def gradient(module: nn.Module) -> Tensor:
        return Problem(module, images, data.labels).loss_and_gradient[1]

    gradients = [gradient(one.eval()) for one in views]
    assert not torch.allclose(gradients[0], gradients[1])
    torch.testing.assert_close(gradient(Mean(views)), torch.stack(gradients).mean(0))
    torch.testing.assert_close(Mean(views)(images), model(images))
    asked: list[int] = []

    def draw(n: int) -> list[nn.Module]:
        asked.append(n)
        return views[:n]

    result = run("pgd_eot", view, data, [0.05], helpers=Helpers(views=draw), draws=4)
    assert asked == [4]
    assert result.queries_per_image == 4 * 5
    assert torch.equal(result.correct, run("pgd", Mean(views[:4]), data, [0.05]).correct)


def test_without_random_feedback_the_expected_gradient_is_the_gradient(trained) -> None:  # type: ignore[no-untyped-def]
    _, view, data = trained
    assert torch.equal(run("pgd_eot", view, data).correct, run("pgd", view, data).correct)


def test_transfer_shows_the_surrogates_adversarial_images_to_the_model(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    other = small_model(seed=1)
    train(
        other,
        "bp",
        TrainingData(subset(), subset()),
        TrainingSettings(epochs=4, batch_size=10, learning_rate=0.01),
        Streams("test", 1),
    )
    assert torch.equal(run("transfer", model, data).correct, run("pgd", model, data).correct)
    images = to_unit_interval(data.images)
    pgd = get_attack("pgd")
    made = pgd.propose(
        Problem(other.eval().requires_grad_(False), images, data.labels),
        [0.05],
        plugins.settings_class("attack", "pgd")(),
    )
    with torch.no_grad():
        expected = model.eval()(made.images[0]).argmax(1) == data.labels
    result = run("transfer", model, data, [0.05], helpers=Helpers({"twin": other}))
    assert torch.equal(result.correct[0], expected)
    assert result.queries_per_image == 0
    with pytest.raises(UserError, match="give it a surrogate"):
        run("transfer", model, data, helpers=Helpers())


def test_one_pixel_on_a_linear_classifier_finds_what_the_closed_form_allows() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(9, generator=generator)
    images = torch.randint(0, 256, (30, 1, 3, 3), generator=generator, dtype=torch.uint8)
    x = to_unit_interval(images).flatten(1)
    labels = (x @ weight > 0).long()
    towards = torch.where(labels[:, None] == 1, weight, -weight)  # what one more unit of a pixel adds to the margin
    margin, gain = (x * towards).sum(1), torch.where(towards > 0, x * towards, (x - 1) * towards).amax(1)
    data = Subset(images, labels, ("0", "1"), (0.0,), (1.0,))
    correct = run("few_pixel", Linear(weight, 0.0), data, [1.0], generations=60, population=60).correct[0]
    clear = (margin - gain).abs() > 0.02
    assert torch.equal(correct[clear], (margin > gain)[clear])
    assert 5 < int(correct[clear].sum()) < int(clear.sum()) - 5


def test_pixels_are_painted_where_the_genes_say() -> None:
    from creditflow.attacks.methods.few_pixel import painted

    image = torch.zeros(2, 3, 4)
    genes = np.array([[1.9, 0.2, 0.5, 0.25, 2.0, 3.999, 1.0, 0.75]])  # rows and columns are rounded down
    (copy,) = painted(image, genes)
    assert copy[:, 1, 0].tolist() == [0.5, 0.25]
    assert copy[:, 2, 3].tolist() == [1.0, 0.75]
    assert int((copy != 0).sum()) == 4


def test_the_boundary_attack_walks_alone_as_foolboxs_does_and_together_in_directions_of_its_own(trained) -> None:  # type: ignore[no-untyped-def]
    from foolbox.attacks import boundary_attack

    from creditflow.attacks.methods.boundary import draw_proposals

    def arguments(n: int) -> tuple[object, ...]:
        generator = torch.Generator().manual_seed(0)
        x, start = (
            torch.rand((1, 1, 4, 4), generator=generator).repeat(n, 1, 1, 1),
            torch.rand((1, 1, 4, 4), generator=generator).repeat(n, 1, 1, 1),
        )
        away = x - start
        norms = away.flatten(1).norm(dim=1)
        tensors = (
            x,
            start,
            away,
            away / norms[:, None, None, None],
            norms,
            torch.full((n,), 0.1),
            torch.full((n,), 0.05),
        )
        return ((0, 1), *map(ep.astensor, tensors))

    torch.manual_seed(5)
    ours = draw_proposals(*arguments(1))  # type: ignore[arg-type]
    torch.manual_seed(5)
    for mine, theirs in zip(ours, boundary_attack.draw_proposals(*arguments(1)), strict=True):
        torch.testing.assert_close(mine.raw, theirs.raw)
    first, second = draw_proposals(*arguments(2))[1].raw.flatten(1)  # type: ignore[arg-type]
    assert not torch.allclose(first, second)
    theirs = boundary_attack.draw_proposals(*arguments(2))[1].raw.flatten(1)
    torch.testing.assert_close(theirs[0], theirs[1])  # why ours exists


# --- guards and bad input -----------------------------------------------------------------------------------------


class Wrapped(nn.Module):
    """A model whose outputs, or their gradient, have been tampered with."""

    def __init__(self, inner: nn.Module, tamper: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.tamper = inner, tamper

    def forward(self, x: Tensor) -> Tensor:
        return self.tamper(self.inner(x))


def test_a_sound_model_fires_no_guard(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    checks = run("pgd", model, data, [0.05, 0.5]).checks
    assert fired(checks) == []
    assert checks["classes_without_image"] == []
    assert checks["attackable_images"] == round(checks["clean_accuracy"] * 40)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (lambda z: z.detach() + 0 * z, ["zero_gradients", "above_chance_at_half"]),  # the gradient is zero
        (lambda z: z + 1e-4 * torch.randn_like(z), ["randomised_outputs"]),
        (lambda z: 1e6 * z, ["saturated_loss", "zero_gradients"]),  # the softmax saturates
    ],
)
def test_guards_fire_where_gradients_are_masked(trained, tamper, expected: list[str]) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    checks = run("pgd", Wrapped(model, tamper), data, [0.05, 0.5]).checks
    assert set(expected) <= set(fired(checks))


def test_gradients_that_are_no_numbers_are_noticed(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    broken = Wrapped(model, lambda z: z + torch.where(z > 1e9, z, z - z).sqrt() * 0)
    images = to_unit_interval(data.images)
    seen = guards.observe(Problem(broken, images, data.labels), gradient=True)
    assert "nonfinite_gradients" in fired(guards.summarise(seen))
    assert "nonfinite_gradients" in fired(run("fgsm", broken, data, [0.05, 0.5]).checks)


def test_a_saturated_softmax_does_not_pass_for_robustness(trained) -> None:  # type: ignore[no-untyped-def]
    """The logits are so large that exp(-gap) is there in float32 and exp(-2 gap) is not.

    The classifier stays the same, but its squared error is flat.
    """
    model, _, data = trained
    with torch.no_grad():
        best = model.eval()(to_unit_interval(data.images)).topk(2).values
    scale = float(70 / (best[:, 0] - best[:, 1]).median())
    sharp = Wrapped(model, lambda z: scale * z)
    plain, masked = (run("pgd_mse", one, data, [0.1], random_start=False) for one in (model, sharp))
    honest = run("pgd", sharp, data, [0.1])
    assert torch.equal(masked.clean_correct, plain.clean_correct)
    assert masked.correct.float().mean() > plain.correct.float().mean() + 0.2  # seems robust
    assert honest.correct.float().mean() < masked.correct.float().mean() - 0.2  # and is not
    assert masked.checks["zero_gradients"] > 0.1 > plain.checks["zero_gradients"]
    assert "zero_gradients" in fired(masked.checks)


def test_guards_look_at_the_loss_that_the_attack_ascends(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    saturated = Wrapped(model, lambda z: 1e6 * z)
    of = {
        name: run(name, saturated, data, [0.05], **CHEAP.get(name, {})).checks
        for name in ("apgd_ce", "apgd_dlr", "fab", "tpgd")
    }
    assert of["apgd_ce"]["zero_gradients"] > 0.5 and of["apgd_dlr"]["zero_gradients"] == 0  # the ratio knows no scale
    assert not {"zero_gradients", "saturated_loss"} & (set(of["fab"]) | set(of["tpgd"]))


def test_a_ratio_that_is_constant_by_definition_is_no_sign_of_a_hidden_gradient() -> None:
    generator = torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).requires_grad_(False)
    images = torch.rand((8, 1, 4, 4), generator=generator)
    ranks = model(images).argsort(1, descending=True)
    for rank in range(5):
        problem = Problem(model, images, ranks[:, rank], loss=logits_ratio)
        flat = problem.loss_and_gradient[1].flatten(1).abs().amax(1)
        assert (flat < 1e-5).all() == (rank == 2)
        assert guards.summarise(guards.observe(problem, gradient=True))["zero_gradients"] == 0
    constant = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).requires_grad_(False)
    constant[1].weight.zero_()
    constant[1].bias.copy_(torch.arange(5.0))
    hidden = Problem(constant, images, torch.full((8,), 4), loss=logits_ratio)
    assert guards.summarise(guards.observe(hidden, gradient=True))["zero_gradients"] == 1


def test_the_difference_of_logits_ratio_is_the_references() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn((50, 5), generator=generator), torch.randint(0, 5, (50,), generator=generator)
    reference = APGDAttack(nn.Identity(), eps=0.1, device="cpu").dlr_loss(logits, labels)
    torch.testing.assert_close(logits_ratio(logits, labels), reference)


def test_the_attackers_view_of_brsf_has_the_magnitudes_it_was_trained_with(tmp_path: Path) -> None:
    model = small_model()
    view = apply_rule(model, "brsf", generator=torch.Generator().manual_seed(0))
    save_model(tmp_path / "one.safetensors", model, rule="brsf", feedback=feedback_state(view))
    args = Namespace(model=tmp_path / "one.safetensors", gradient="feedback", seed=0)
    seen = attacker_view(args, load_model(args.model)).eval()
    x = torch.rand((2, 1, 12, 12), requires_grad=True)
    torch.autograd.grad(seen(x).sum(), x)
    for name, value in feedback_state(seen).items():
        assert torch.equal(value, feedback_state(view)[name]), name


@pytest.mark.parametrize("name", ["pgd_mse", "pgd_mse_code"])
def test_attacks_on_the_squared_error_ascend_it(trained, name: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    model.eval().requires_grad_(False)
    images = to_unit_interval(data.images)
    attack = get_attack(name)
    proposed = attack.propose(
        Problem(model, images, data.labels, loss=attack.loss), [0.1], plugins.settings_class("attack", name)()
    )
    before, after = (attack.loss(model(x), data.labels) for x in (images, proposed.images[0]))
    by_hand = (model(images).softmax(1) - nn.functional.one_hot(data.labels, 3)).square().sum(1)
    torch.testing.assert_close(before, by_hand)
    assert bool((after >= before - 1e-6).float().mean() > 0.95)
    assert float(proposed.images[0].min()) == (pytest.approx(-0.1) if name == "pgd_mse_code" else 0)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [(lambda z: z * float("nan"), "not finite"), (lambda z: z.softmax(1), "probabilities, but attacks need logits")],
)
def test_outputs_that_no_attack_can_work_on_are_refused(trained, tamper, message: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    with pytest.raises(UserError, match=message):
        run("pgd", Wrapped(model, tamper), data)


@pytest.mark.parametrize("epsilons", [[0.1, 0.05], [0.1, 0.1], [], [float("nan")], [-0.1], [float("inf")]])
def test_epsilons_rise_each_once(trained, epsilons: list[float]) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    with pytest.raises(UserError, match="epsilons must"):
        run("fgsm", model, data, epsilons)


def test_images_that_are_not_bytes_are_refused(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    with pytest.raises(UserError, match="images must be uint8 from 0 to 255, not float32"):
        run("fgsm", model, Subset(data.images / 255 + 1, data.labels, data.class_names, data.mean, data.std))


def test_nothing_to_attack_and_absent_classes_are_counted(trained) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    with torch.no_grad():
        wrong = (model.eval()(to_unit_interval(data.images)).argmax(1) + 1) % 3
    for name in ("pgd", "apgd_ce", "square", "fab", "few_pixel", "boundary"):
        result = run(
            name,
            model,
            Subset(data.images[:6], wrong[:6], data.class_names, data.mean, data.std),
            sizes(name),
            **CHEAP[name],
        )
        assert result.checks["attackable_images"] == 0
        assert not bool(result.correct[0].any())
    chosen = data.labels == 1
    result = run("fgsm", model, Subset(data.images[chosen], data.labels[chosen], data.class_names, data.mean, data.std))
    assert result.checks["classes_without_image"] == [0, 2]


@pytest.mark.parametrize(
    ("name", "epsilon", "message"), [("apgd_dlr", 0.1, "at least 3 classes"), ("few_pixel", 1.5, "number of pixels")]
)
def test_an_attack_says_what_it_needs(name: str, epsilon: float, message: str) -> None:
    data = Subset(subset(4).images, torch.tensor([0, 1, 0, 1]), ("a", "b"), (0.0,), (1.0,))
    with pytest.raises(UserError, match=message):
        run(name, Linear(torch.randn(144), 0.1), data, [epsilon])
