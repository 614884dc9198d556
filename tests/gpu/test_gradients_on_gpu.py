"""The check of gradients and the audit on a GPU: they say what they say on the CPU."""

import copy

import pytest
import torch
from torch import Tensor, nn

import creditflow as cf
from creditflow.core import plugins
from creditflow.data.inputs import to_unit_interval
from on_gpu import assert_near, assert_same_bits, subset, trained_model

every_rule = pytest.mark.parametrize("rule", plugins.names("rule"))


def view(rule: str, device: torch.device) -> nn.Module:
    return cf.apply_rule(trained_model().to(device), rule, generator=torch.Generator().manual_seed(3)).eval()


def attacked(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    data = subset(n, seed=7)
    return to_unit_interval(data.images).to(device), data.labels.to(device)


def gradient(model: nn.Module, images: Tensor) -> Tensor:
    """The gradient of a weighted sum of the logits. That of a cross-entropy near zero would be mostly rounding."""
    x = images.clone().requires_grad_()
    logits = model(x)
    (slope,) = torch.autograd.grad((logits * torch.linspace(-1, 1, logits.shape[1], device=x.device)).sum(), x)
    return slope


@every_rule
def test_the_verdict_is_that_of_the_cpu(rule: str, device: torch.device) -> None:
    ours, expected = (
        cf.check_gradient(view(rule, place), *attacked(8, place)) for place in (device, torch.device("cpu"))
    )
    assert ours.verdict == expected.verdict == ("honest" if rule == "bp" else "surrogate")
    assert ours.culprits == expected.culprits
    assert ours.cosine == pytest.approx(expected.cosine, abs=1e-3)


@every_rule
def test_exact_gradients_are_those_of_the_plain_network(rule: str, device: torch.device) -> None:
    images, _ = attacked(8, device)
    model = view(rule, device)
    with cf.exact_gradients(model):
        inside = gradient(model, images)
    expected = gradient(trained_model(), images.cpu())
    assert_near({"images": inside}, {"images": expected}, 1e-4)


@pytest.mark.parametrize("rules", [(), ("fa",)], ids=["one network", "and one under FA"])
def test_an_audit_finds_what_it_finds_on_the_cpu(rules: tuple[str, ...], device: torch.device) -> None:
    tables = []
    for place in (device, torch.device("cpu")):
        models = {"reference": trained_model().to(place), **{rule: view(rule, place) for rule in rules}}
        images, labels = attacked(12, torch.device("cpu"))
        before = copy.deepcopy(models["reference"].state_dict())
        options = {"epsilons": [0.05], "budget": "quick", "progress": False, "device": place, "batch_size": 12}
        tables.append(cf.audit(models, images, labels, **options).table)
        assert_same_bits(models["reference"].state_dict(), before)
    ours, expected = tables
    assert list(ours.model) == list(expected.model) and list(ours.gradient) == list(expected.gradient)
    assert ours.clean.to_numpy() == pytest.approx(expected.clean.to_numpy())
    assert ours.worst.to_numpy() == pytest.approx(expected.worst.to_numpy(), abs=0.17)
