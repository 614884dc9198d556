"""Attacks against plain foolbox, closed forms and their own promises."""

from collections.abc import Sequence

import eagerpy as ep
import foolbox
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from creditflow import apply_rule, runtime
from creditflow.attacks import Attack, Candidates, Problem, choose_images, get_attack, run_attack
from creditflow.attacks.evaluate import perturbation_size
from creditflow.attacks.foolbox_adapter import starting_points
from creditflow.data.prepared import Subset, to_unit_interval
from creditflow.errors import UserError
from creditflow.settings import NoSettings, parse
from creditflow.training import TrainingSettings, train
from helpers import small_model, subset

EPSILONS = [0.0, 0.01, 0.05, 0.2]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, nn.Module, Subset]:
    """A model that frSF trained, the view with its feedback weights, and images it has not seen."""
    model, data = small_model(), subset()
    state, _ = train(model, "frsf", data, data, TrainingSettings(4, 10, 0.01), seed=0, stream="test")
    return model, apply_rule(model, "frsf", state=state), subset(40, seed=1)


def run(name: str, model: nn.Module, data: Subset, epsilons: Sequence[float] = EPSILONS, batch_size: int = 100, **parameters: object):  # type: ignore[no-untyped-def]
    attack = get_attack(name)
    return run_attack(
        attack,
        parse(attack.settings, parameters, name),
        model,
        data,
        torch.arange(len(data.labels)),
        epsilons,
        batch_size=batch_size,
        seed=3,
    )


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("name", ["fgsm", "pgd"])
@pytest.mark.parametrize("gradient", ["exact", "feedback"])
def test_gradient_attacks_equal_plain_foolbox_image_by_image(trained, name: str, random_start: bool, gradient: str) -> None:  # type: ignore[no-untyped-def]
    model, view, data = trained
    attacked = model if gradient == "exact" else view
    ours = run(name, attacked, data, random_start=random_start)
    attacked.eval()
    reference = (
        foolbox.attacks.LinfFastGradientAttack(random_start=random_start)
        if name == "fgsm"
        else foolbox.attacks.LinfPGD(rel_stepsize=1 / 3, steps=5, random_start=random_start)
    )
    torch.manual_seed(runtime.derive_seed("attack", 3))
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
        step = get_attack("fgsm").propose(problem, [0.001], get_attack("fgsm").settings()).images[0] - images
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
@given(seed=st.integers(0, 2**20), epsilon=st.floats(0.001, 0.3), name=st.sampled_from(["fgsm", "pgd"]))
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


@pytest.mark.parametrize("name", ["fgsm", "pgd", "boundary", "hopskipjump"])
def test_an_attack_leaves_the_model_as_it_found_it(trained, name: str) -> None:  # type: ignore[no-untyped-def]
    model, _, data = trained
    model.train()
    model.head.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    rng = torch.get_rng_state()
    budget = {"boundary": {"steps": 20}, "hopskipjump": {"steps": 1, "initial_evaluations": 5}}.get(name, {})
    run(name, model, data, **budget)
    assert model.training
    assert [p.requires_grad for p in model.head.parameters()] == [False, False]
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())  # batch-norm statistics too
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
            directions.append(kind(constraint="l2").approximate_gradients(fooled, images, 20, ep.ones(images, len(labels))).raw.flatten(1))
    ours, theirs = directions
    torch.testing.assert_close(ours.norm(dim=1), torch.ones(len(labels)))
    torch.testing.assert_close(nn.functional.cosine_similarity(ours, theirs), torch.ones(len(labels)))
    assert theirs.norm().item() == pytest.approx(1, rel=1e-4)  # one norm for the whole batch: why ours exists


def test_an_image_without_starting_point_is_counted_and_stays_correct() -> None:
    data = subset(12)
    constant = Linear(torch.zeros(144), 1.0)  # says 1 to everything
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
    starts, found = starting_points(Problem(model, images, data.labels), Pool(images, predictions))
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
    attack = Attack("linf", True, NoSettings, lambda problem, epsilons, _: Candidates([cheat(problem.images) for _ in epsilons]))
    with pytest.raises(RuntimeError, match=message):
        run_attack(attack, NoSettings(), model, data, torch.arange(5), [0.1], batch_size=5, seed=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)))
def test_perturbation_size_is_the_norm_over_all_pixels(seed: int, shape: tuple[int, ...]) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for n in range(shape[0]):
        assert perturbation_size(delta, "linf")[n].item() == pytest.approx(delta[n].abs().max().item())
        assert perturbation_size(delta, "l2")[n].item() == pytest.approx(delta[n].square().sum().sqrt().item(), rel=1e-5)


def test_the_attacked_images_are_fixed_and_do_not_repeat() -> None:
    data = subset()
    chosen = choose_images(data, 20)
    assert torch.equal(chosen, choose_images(data, 20))
    assert len(set(chosen.tolist())) == 20
    with pytest.raises(UserError, match="lower `images`"):
        choose_images(data, 61)


def test_settings_of_an_attack_are_checked() -> None:
    pgd = get_attack("pgd").settings
    for values, message in [
        ({"step": 3}, "unknown key 'step'; did you mean 'steps'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": 2.5}, "steps must be an integer"),
        ({"steps": True}, "steps must be an integer"),
        ({"relative_step": -1}, "relative_step must be positive"),
        ({"random_start": 1}, "random_start must be true or false"),
    ]:
        with pytest.raises(UserError, match=message):
            parse(pgd, values, "pgd")
