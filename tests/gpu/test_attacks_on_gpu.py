"""Attacks on a GPU: without random numbers the outcomes are those of the CPU, else the accuracies are close."""

import foolbox
import pytest
import torch

from creditflow.attacks.batch import AttackResult
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.inputs import to_unit_interval
from creditflow.feedback.apply import apply_rule
from on_gpu import small_model, subset, trained_model

EPSILONS = [0.0, 0.03, 0.06, 0.1]
#: For each attack that draws no number on the device: settings, and the share of outcomes that rounding may change.
EQUAL = {
    "fgsm": {},
    "fgsm_mse": {},
    "pgd": {},
    "pgd_mse": {"steps": 5},
    "apgd_ce": {"steps": 10},
    "apgd_dlr": {"steps": 10},
    "apgd_scaled": {"steps": 10},
    "apgd_targeted": {"steps": 10, "targets": 2},
    "ddn": {"steps": 10},
    "fmn_linf": {"steps": 10},
    "fmn_l2": {"steps": 10},
    "transfer": {},
}
#: Attacks that draw on the device.
CLOSE = {
    "tpgd": {"steps": 5},
    "square": {"queries": 100},
    "fab": {"steps": 10},
    "fab_l2": {"steps": 10},
    "pgd_eot": {"steps": 3, "draws": 5},
    "boundary": {"steps": 50},
    "hopskipjump": {"steps": 2, "max_evaluations": 200},
    "few_pixel": {"generations": 3, "population": 20},
    "pgd_mse_code": {"steps": 5},
    "pgd_smoothed": {"steps": 5, "points": 2, "relative_step": 0.3},
}


def attacked(name: str, device: torch.device, values: dict[str, object]) -> AttackResult:
    attack, data = get_attack(name), subset(30, seed=7).to(device)
    known = plugins.settings_class("attack", name)
    settings = parse(known, {key: value for key, value in values.items() if key in known.model_fields}, name)
    epsilons = EPSILONS if attack.norm == "linf" else [0.0, 1.0, 2.0]
    helpers = Helpers(
        surrogates={"twin": small_model(seed=5).to(device).eval()},
        views=lambda n: [
            apply_rule(model, "brsf", generator=torch.Generator().manual_seed(index)).eval() for index in range(n)
        ],
    )
    model = trained_model().to(device)
    chosen = torch.arange(30)
    return run_attack(attack, settings, model, data, chosen, epsilons, batch_size=16, seed=0, helpers=helpers)


@pytest.mark.parametrize("name", EQUAL)
def test_outcomes_are_those_of_the_cpu(name: str, device: torch.device) -> None:
    ours, expected = (attacked(name, place, EQUAL[name]) for place in (device, torch.device("cpu")))
    assert torch.equal(ours.clean_correct, expected.clean_correct)
    # The sign of a gradient near zero can differ, and with it the path of an image.
    assert float((ours.correct != expected.correct).double().mean()) <= 0.05
    assert ours.queries_per_image == pytest.approx(expected.queries_per_image, rel=0.05)
    near = (ours.perturbation - expected.perturbation).abs() <= 1e-3 * expected.perturbation + 1e-4
    assert float(near.double().mean()) >= 0.9


@pytest.mark.parametrize("name", CLOSE)
def test_accuracies_are_close_to_those_of_the_cpu(name: str, device: torch.device) -> None:
    ours, expected = (attacked(name, place, CLOSE[name]) for place in (device, torch.device("cpu")))
    assert torch.equal(ours.clean_correct, expected.clean_correct)
    difference = ours.correct.double().mean(1) - expected.correct.double().mean(1)
    assert float(difference.abs().max()) <= 0.2


@pytest.mark.parametrize("name", ["fgsm", "pgd", "apgd_ce", "square", "fab"])
def test_two_runs_have_the_same_bits(name: str, device: torch.device) -> None:
    first, second = (attacked(name, device, EQUAL.get(name) or CLOSE.get(name) or {}) for _ in range(2))
    assert torch.equal(first.correct, second.correct) and torch.equal(first.perturbation, second.perturbation)


@pytest.mark.parametrize("make", [foolbox.attacks.LinfFastGradientAttack, foolbox.attacks.LinfPGD])
def test_foolbox_itself_proposes_the_images_of_the_cpu(make: type, device: torch.device) -> None:
    data, proposed = subset(30, seed=7), []
    for place in (device, torch.device("cpu")):
        model = foolbox.PyTorchModel(trained_model().to(place), bounds=(0, 1), device=place)
        images, labels = to_unit_interval(data.images.to(place)), data.labels.to(place)
        proposed.append(make(random_start=False)(model, images, labels, epsilons=0.05)[1].cpu())
    assert float(((proposed[0] - proposed[1]).abs() <= 1e-5).double().mean()) >= 0.99
