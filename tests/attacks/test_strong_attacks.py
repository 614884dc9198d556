"""The cascade, convergence, kept images, kinds of attacks, and attacks that look for smallest perturbations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from creditflow.attacks.attack import Problem
from creditflow.attacks.batch import AttackResult
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.attacks.kinds import REQUIRED, kinds, missing, needs_surrogate
from creditflow.attacks.losses import at_own_scale, scaled_cross_entropies, targeted_ratio
from creditflow.attacks.methods._apgd import APGD, TargetedAPGD
from creditflow.attacks.methods.cascade import STAGES
from creditflow.attacks.methods.settings.cascade import stage_names
from creditflow.attacks.metrics import attack_metrics, attack_outcomes
from creditflow.compute.randomness import Streams
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.data.labels import cross_entropies
from creditflow.data.prepared import Subset
from creditflow.records.agreement import mistake
from creditflow.records.guards import fired
from creditflow.training.loop import train
from creditflow.training.settings import TrainingSettings
from creditflow.training.task import TrainingData
from helpers import small_model, subset

Trained = tuple[nn.Module, nn.Module, nn.Module, Subset]

STRONG: dict[str, Any] = {
    "transfer": {"steps": 5},
    "apgd_scaled": {"steps": 10},
    "apgd_targeted": {"steps": 5, "targets": 2},
    "square": {"queries": 30},
}


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A model, its two surrogates, and images they have not seen."""
    data = subset(100, 5, size=18)
    models = []
    for seed in range(3):
        model = small_model(5, size=18, seed=seed)
        settings = TrainingSettings(epochs=4, batch_size=10, learning_rate=0.01)
        train(model, "bp", TrainingData(data, data), settings, Streams("test", seed))
        models.append(model.eval().requires_grad_(False))
    first, second, third = models
    return first, second, third, subset(30, 5, size=18, seed=1)


def run(
    name: str,
    model: nn.Module,
    data: Subset,
    epsilons: list[float],
    parameters: dict[str, Any] | None = None,
    helpers: Helpers | None = None,
    batch_size: int = 100,
    **options: Any,
) -> AttackResult:
    settings = parse(plugins.settings_class("attack", name), parameters or {}, name)
    chosen = torch.arange(len(data.labels))
    return run_attack(
        get_attack(name),
        settings,
        model,
        data,
        chosen,
        epsilons,
        batch_size=batch_size,
        seed=3,
        helpers=helpers,
        **options,
    )


class Tampered(nn.Module):
    """A model whose logits are changed."""

    def __init__(self, inner: nn.Module, change: Any) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = self.change(self.inner(x))
        return changed


# --- APGD and the scale of logits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_apgd_fools_the_very_images_that_the_librarys_apgd_fools(trained: Trained, loss: str) -> None:
    model, _, _, data = trained
    images = to_unit_interval(data.images)
    outcomes = []
    for ours in (True, False):
        options = {"predict": model, "n_iter": 25, "eps": 0.09, "seed": 7, "n_restarts": 2}
        if loss == "targeted":
            attack = (TargetedAPGD if ours else APGDAttack_targeted)(**options, n_target_classes=3)
        else:
            attack = (APGD if ours else APGDAttack)(**options, loss=loss)
        outcomes.append(model(attack.perturb(images, data.labels)).argmax(1) == data.labels)
    assert torch.equal(*outcomes)
    assert 0 < int(outcomes[0].sum()) < 25


@pytest.mark.parametrize("name", ["apgd_scaled", "apgd_dlr", "apgd_targeted"])
def test_no_scale_of_the_logits_hides_the_gradient(trained: Trained, name: str) -> None:
    model, _, _, data = trained
    plain = run(name, model, data, [0.09], {"steps": 10})
    assert 0.1 < plain.correct.double().mean() < 0.9
    for exponent in (-40, -13, 13, 40):  # powers of two change no digit of a logit
        scaled = run(name, Tampered(model, lambda z, e=exponent: z * 2.0**e), data, [0.09], {"steps": 10})
        if name == "apgd_scaled" or abs(exponent) < 20:  # the library adds 1e-12 to a difference of logits
            assert torch.equal(scaled.correct, plain.correct), exponent
        assert fired(scaled.checks) == []
    for factor in (1e-4, 1e4):  # these round the logits
        scaled = run(name, Tampered(model, lambda z, f=factor: z * f), data, [0.09], {"steps": 10})
        assert (scaled.correct != plain.correct).sum() <= 1


def test_logits_at_their_own_scale() -> None:
    logits = torch.randn((20, 6), generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    scaled = at_own_scale(logits)
    torch.testing.assert_close(scaled.std(1, unbiased=False), torch.full((20,), 4.0, dtype=torch.float64))
    labels = torch.arange(20) % 6
    (gradient,) = torch.autograd.grad(scaled_cross_entropies(logits, labels).sum(), logits)
    factor = 4 / logits.detach().std(1, keepdim=True, unbiased=False)
    softened = (logits.detach() * factor).requires_grad_()
    (expected,) = torch.autograd.grad(cross_entropies(softened, labels).sum(), softened)
    torch.testing.assert_close(gradient, expected * factor)
    one_hot = 1e30 * nn.functional.one_hot(torch.arange(3), 5000).float()
    assert bool((at_own_scale(one_hot).amax(1) <= 40).all())  # exp(-80) is no zero in float32
    assert float(at_own_scale(torch.full((2, 3), 7.0)).abs().max()) == 0
    # A class that is switched off does not make the others look alike.
    usual = torch.randn((20, 6), generator=torch.Generator().manual_seed(0))
    off = torch.cat([usual, torch.full((20, 1), -1e6)], 1)
    spread = at_own_scale(off)[:, :6].std(1)
    assert bool((spread > 1).all())


def test_the_targeted_ratio_is_the_librarys() -> None:
    logits = torch.randn((50, 6), generator=torch.Generator().manual_seed(0))
    labels = logits.argmax(1)
    attack = APGDAttack_targeted(nn.Identity(), eps=0.1, device="cpu")
    attack.y_target = logits.argsort(1)[:, -2]
    torch.testing.assert_close(targeted_ratio(logits, labels), attack.dlr_loss_targeted(logits, labels))


# --- the cascade --------------------------------------------------------------------------------------------------


def test_a_cascade_is_its_stages_one_after_another_at_the_images_that_stand(trained: Trained) -> None:
    model, twin, other, data = trained
    surrogates = {"twin": twin, "other_seed": other}
    result = run("cascade", model, data, [0.09], STRONG, Helpers(surrogates))
    images = to_unit_interval(data.images)
    standing = torch.arange(len(images))[model(images).argmax(1) == data.labels]
    assert result.fooled_by is not None
    torch.manual_seed(0)
    for number, (name, attack) in enumerate(STAGES.items(), start=1):
        if name not in STRONG:
            continue
        fell = result.fooled_by[0] == number
        assert not bool(fell[[index for index in range(len(images)) if index not in standing]].any())
        if name == "transfer":  # the one stage without randomness: the outcome is known image by image
            settings = parse(plugins.settings_class("attack", name), STRONG[name], name)
            fooled = torch.zeros(len(images), dtype=torch.bool)
            for surrogate in (twin, other):
                problem = Problem(model, images[standing], data.labels[standing], surrogates={"one": surrogate})
                made = attack.propose(problem, [0.09], settings).images[0]
                fooled[standing] |= model(made).argmax(1) != data.labels[standing]
            assert torch.equal(fell, fooled)
        standing = torch.tensor([index for index in standing.tolist() if not fell[index]])
        left = result.checks["stages"][name]["accuracy"]
        assert left == [pytest.approx(len(standing) / len(images))]
    assert torch.equal(result.correct[0].nonzero()[:, 0], standing)
    assert 0 < len(standing) < len(images)
    assert result.checks["stages"]["transfer"]["accuracy"][0] < 1


def test_the_cascade_never_does_worse_than_its_stages_and_falls_with_epsilon(trained: Trained) -> None:
    model, twin, _, data = trained
    result = run("cascade", model, data, [0.0, 0.08, 0.09], STRONG, Helpers({"twin": twin}), batch_size=8)
    robust = result.correct.double().mean(1)
    assert torch.equal(result.correct[0], result.clean_correct)
    assert bool((result.correct[1:] <= result.correct[:-1]).all())
    for name in ("apgd_scaled", "apgd_targeted", "square"):
        alone = run(name, model, data, [0.0, 0.08, 0.09], STRONG[name]).correct.double().mean(1)
        assert bool((robust <= alone + 0.04).all()), name  # one image, for another random start


def test_without_transfer_a_cascade_needs_no_surrogate(trained: Trained) -> None:
    model, _, _, data = trained
    assert run("cascade", model, data, [0.05], {"square": {"queries": 5}}).checks["stages"].keys() == {"square"}
    with pytest.raises(UserError, match="give it a surrogate"):
        run("cascade", model, data, [0.05], {"transfer": {}})
    with pytest.raises(UserError, match="name at least one stage of: transfer, apgd_scaled"):
        run("cascade", model, data, [0.05])


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        (lambda z: z.detach() + 0 * z, "zero_gradients"),
        (lambda z: z + 0.01 * torch.randn_like(z), "randomised_outputs"),
    ],
)
def test_guards_of_a_cascade(trained: Trained, change: Any, sign: str) -> None:
    model, _, _, data = trained
    stages = {"apgd_scaled": {"steps": 3}, "apgd_ce": {"steps": 3}, "square": {"queries": 30}}
    result = run("cascade", Tampered(model, change), data, [0.3], stages)
    assert sign in fired(result.checks)
    if sign == "zero_gradients":
        assert result.checks["only_without_gradient"] > 0.02


def test_a_saturated_softmax_blinds_one_stage_of_a_cascade_and_not_the_cascade(trained: Trained) -> None:
    model, _, _, data = trained
    stages = {"apgd_scaled": {"steps": 5}, "apgd_ce": {"steps": 5}}
    checks = run("cascade", Tampered(model, lambda z: 1e6 * z), data, [0.05], stages).checks
    assert checks["stages"]["apgd_ce"]["zero_gradients"] > 0.5
    assert fired(checks) == []
    assert "only_without_gradient" not in checks
    blind = run("cascade", Tampered(model, lambda z: 1e6 * z), data, [0.05], {"apgd_ce": {"steps": 5}}).checks
    assert "zero_gradients" in fired(blind)


# --- convergence, kept images, agreement with the record -----------------------------------------------------------


def test_one_step_has_not_converged_and_many_have(trained: Trained) -> None:
    model, _, _, data = trained
    few = run("apgd_ce", model, data, [0.08, 0.09], {"steps": 1}, check_convergence=True)
    many = run("apgd_ce", model, data, [0.08, 0.09], {"steps": 60}, check_convergence=True)
    assert "unconverged" in fired(few.checks)
    at_epsilon = few.checks["at_epsilon"]["unconverged"]
    assert len(at_epsilon) == 2 and few.checks["unconverged"] == max(at_epsilon)
    assert "unconverged" not in fired(many.checks)
    assert torch.equal(few.correct, run("apgd_ce", model, data, [0.08, 0.09], {"steps": 1}).correct)
    cascade = run("cascade", model, data, [0.09], {"apgd_ce": {"steps": 10}}, check_convergence=True)
    assert cascade.checks["unconverged"] > 0.01
    blind = run("cascade", model, data, [0.06], {"square": {"queries": 5}}, check_convergence=True)
    assert "unconverged" not in blind.checks
    with pytest.raises(UserError, match="attack pgd has no steps that adapt"):
        run("pgd", model, data, [0.06], check_convergence=True)


def record_of(result: AttackResult, epsilons: list[float]) -> tuple[dict[str, Any], dict[str, Any]]:
    metrics = [metric.__dict__ for metric in attack_metrics(result, epsilons)]
    content = {"keys": {"rule": "bp", "attack": "cascade", "gradient": "exact"}, "metrics": metrics}
    content |= {"checks": result.checks, "settings": {"epsilons": epsilons}}
    return json.loads(json.dumps(content)), attack_outcomes(result, torch.arange(len(result.clean_correct)))


def test_kept_images_are_what_the_outcomes_say(trained: Trained, tmp_path: Path) -> None:
    model, _, _, data = trained
    epsilons = [0.08, 0.09]
    stages = {"apgd_scaled": {"steps": 5}, "square": {"queries": 20}}
    result = run("cascade", model, data, epsilons, stages, keep=11, batch_size=8)
    content, outcomes = record_of(result, epsilons)
    assert mistake(content, outcomes) is None
    images, clean = outcomes["kept_images"], outcomes["kept_clean"]
    assert images.shape == (2, 11, 1, 18, 18)
    np.testing.assert_array_equal(clean, to_unit_interval(data.images)[:11].numpy())
    assert (np.abs(images - clean).max((1, 2, 3, 4)) <= np.array(epsilons) + 1e-6).all()
    for row in range(2):
        np.testing.assert_array_equal(outcomes["kept_predictions"][row], model(torch.tensor(images[row])).argmax(1))
    np.testing.assert_array_equal(outcomes["kept_predictions"] == outcomes["kept_labels"], outcomes["correct"][:, :11])
    outcomes["kept_predictions"] = outcomes["kept_predictions"][:, ::-1]
    assert "kept images" in str(mistake(content, outcomes))
    with pytest.raises(UserError, match="31 images to keep, but only 30"):
        run("fgsm", model, data, epsilons, keep=31)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content, outcomes: outcomes["fooled_by"].__setitem__(outcomes["correct"], 2), "classified rightly"),
        (lambda content, outcomes: outcomes["fooled_by"].__setitem__(outcomes["fooled_by"] > 0, 3), "did not run"),
        (lambda content, outcomes: content["checks"]["stages"]["square"]["accuracy"].reverse(), "stage square"),
        (lambda content, outcomes: content["checks"].update(only_without_gradient=0.5), "only_without_gradient"),
        (
            lambda content, outcomes: content["checks"]["at_epsilon"].update(only_without_gradient=[0.5]),
            "only_without_gradient",
        ),
        (lambda content, outcomes: outcomes.pop("fooled_by"), "the same stages"),
    ],
)
def test_a_record_that_contradicts_its_stages_is_noticed(trained: Trained, edit: Any, message: str) -> None:
    model, _, _, data = trained
    result = run("cascade", model, data, [0.08, 0.09], {"apgd_scaled": {"steps": 5}, "square": {"queries": 5}})
    content, outcomes = record_of(result, [0.08, 0.09])
    outcomes = {name: array.copy() for name, array in outcomes.items()}
    edit(content, outcomes)
    assert message in str(mistake(content, outcomes))


# --- kinds --------------------------------------------------------------------------------------------------------


def test_kinds_are_what_the_attacks_declare() -> None:
    assert {*STAGES, "transfer_last"} == set(plugins.settings_class("attack", "cascade").model_fields)
    assert list(STAGES) == list(stage_names())
    for name in plugins.names("attack"):
        attack = get_attack(name)
        if name != "cascade":
            expected = {"scale_free"} if attack.scale_free else set()
            expected |= {"transfer"} if attack.uses_surrogate else set()
            expected |= set() if attack.uses_gradient or attack.uses_surrogate else {"gradient_free"}
            assert kinds(name, {}) == expected
        if attack.converges and name != "cascade":
            settings: Any = parse(plugins.settings_class("attack", name), {"steps": 7}, name)
            assert settings.doubled().steps == 14
    assert kinds("cascade", {"transfer": {}, "apgd_scaled": {}, "square": {}}) == set(REQUIRED)
    assert kinds("cascade", {"apgd_ce": {}, "transfer": None}) == set()
    assert needs_surrogate("transfer", {}) and needs_surrogate("cascade", {"transfer": {}})
    assert not needs_surrogate("cascade", {"square": {}}) and not needs_surrogate("pgd", {})


def test_what_is_missing_is_said_in_words() -> None:
    assert missing({"cascade": STRONG}) == []
    assert missing({"apgd_dlr": {}, "square": {}, "transfer": {}}) == []
    (text,) = missing({"apgd_ce": {}, "square": {}, "transfer": {}})
    assert text.startswith("an attack that the scale of the logits can't blind (apgd_dlr, apgd_scaled, apgd_targeted")
    assert len(missing({"pgd": {}})) == 3


# --- smallest perturbations ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "n_classes", "tolerance"),
    [
        ("fmn_linf", {"steps": 200, "first_step": 0.1}, 4, 0.06),
        ("fmn_l2", {"steps": 200, "first_step": 0.1}, 4, 0.06),
        ("ddn", {"steps": 200, "first_size": 0.2}, 2, 0.06),  # among four classes it does not aim at the nearest
        ("fab_l2", {"steps": 20}, 4, 0.08),
        ("fab", {"steps": 20}, 4, 0.08),
    ],
)
def test_smallest_perturbations_of_a_linear_classifier_are_the_closed_form(
    name: str, parameters: dict[str, Any], n_classes: int, tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, n_classes))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn((n_classes, 16), generator=generator))
        network[1].bias.copy_(-network[1].weight.sum(1) / 2)
    images = torch.randint(100, 156, (20, 1, 4, 4), generator=generator, dtype=torch.uint8)
    x = to_unit_interval(images)
    labels = network(x).argmax(1)
    labels[0] = (labels[0] + 1) % n_classes  # wrong from the start: its distance is 0
    logits, weight = network(x).detach(), network[1].weight.detach()
    dual = 2 if get_attack(name).norm == "l2" else 1
    gaps = logits[torch.arange(20), labels][:, None] - logits
    lengths = (weight[labels][:, None] - weight[None]).norm(p=dual, dim=2)
    lengths[torch.arange(20), labels] = 0
    exact = torch.where(lengths > 0, gaps / lengths.clamp_min(1e-9), torch.inf).amin(1).clamp_min(0)
    data = Subset(images, labels, tuple("abcd")[:n_classes], (0.0,), (1.0,))
    sizes = [float(exact.median()), 1.0]
    result = run(name, network, data, sizes, parameters)
    assert result.distance is not None
    assert float(result.distance[0]) == 0
    assert bool((result.distance >= exact - 1e-5).all())
    assert bool((result.distance <= exact * (1 + tolerance) + 2e-3).all())
    assert not bool(result.correct[1].any())
    clear = (exact - sizes[0]).abs() > tolerance * sizes[0] + 2e-3
    assert torch.equal(result.correct[0][clear], (exact > sizes[0])[clear])
    assert len(attack_metrics(result, sizes)) >= 3


def test_an_image_that_no_search_fools_has_an_infinite_distance(trained: Trained) -> None:
    model, _, _, data = trained
    constant = Tampered(model, lambda z: 0 * z + nn.functional.one_hot(torch.tensor(0), 5) * 2.0)
    for name in ("fmn_linf", "fmn_l2", "ddn", "fab_l2"):
        result = run(name, constant, data, [0.1], {"steps": 3})
        assert result.distance is not None
        assert torch.equal(result.distance.isinf(), data.labels == 0), name
