"""Attacks on somebody else's models: the view with the exact gradient, images that are numbers, and a late transfer."""

import json
from typing import Any

import pytest
import torch
from torch import nn

from creditflow.attacks.batch import AttackResult
from creditflow.attacks.convergence import fallen_shares
from creditflow.attacks.foreign import Beside, ExactView, view_of
from creditflow.attacks.judge import Helpers, get_attack, run_attack
from creditflow.attacks.kinds import kinds
from creditflow.attacks.methods.cascade import STAGES
from creditflow.attacks.metrics import attack_metrics, attack_outcomes
from creditflow.core import plugins
from creditflow.core.settings import parse
from creditflow.data.unit_images import unit_images
from creditflow.records.agreement import mistake
from known_models import attacked, honest, lying

SQUARE, LATE_TRANSFER = len(STAGES), len(STAGES) + 1


def run(model: nn.Module, epsilons: list[float], parameters: dict[str, Any], **options: Any) -> AttackResult:
    images, labels = attacked(80)
    data = unit_images(images, labels, torch.device("cpu"))
    settings = parse(plugins.settings_class("attack", "cascade"), parameters, "cascade")
    chosen = torch.arange(len(labels))
    attack = get_attack("cascade")
    return run_attack(attack, settings, model, data, chosen, epsilons, batch_size=80, seed=3, **options)


def test_the_view_has_the_exact_gradient_beside_models_with_their_own() -> None:
    images, labels = attacked(5)
    view, own = view_of(lying(), "exact", honest=False), view_of(lying(), "own", honest=False)
    assert isinstance(view, Beside) and isinstance(view.model, ExactView) and not isinstance(own, Beside)
    gradients = []
    for model in (honest(), view.model, own):
        x = images.clone().requires_grad_()
        logits = model(x)
        torch.testing.assert_close(logits, honest()(images))
        first = torch.autograd.grad(logits[:, 0].sum(), x, retain_graph=True)[0]  # as FAB does
        second = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), x)[0]
        gradients.append((first, second))
    exact, by_view, by_itself = gradients
    torch.testing.assert_close(by_view, exact, rtol=1e-6, atol=1e-9)
    assert float(torch.nn.functional.cosine_similarity(by_itself[1].flatten(), exact[1].flatten(), 0)) < 0.7
    with torch.no_grad():
        assert torch.equal(view(images), lying()(images))


def test_the_gradient_is_taken_beside_images() -> None:
    """There, layers in front that are the identity on [0, 1] have its slope, also at pixels that are exactly 0 or 1."""
    images, labels = attacked(50)
    assert float(((images == 0) | (images == 1)).double().mean()) > 0.5
    slopes = []
    for front in (nn.Identity(), nn.ReLU(), nn.Hardtanh(0, 1), nn.Threshold(0, 0)):
        model = nn.Sequential(front, honest())
        view = view_of(model, "exact", honest=True)
        with torch.no_grad():
            assert torch.equal(view(images), model(images))
        x = images.clone().requires_grad_()
        logits = view(x)
        torch.testing.assert_close(logits, model(images), rtol=0, atol=0.05)
        slopes.append(torch.autograd.grad(nn.functional.cross_entropy(logits, labels), x)[0])
        x.grad = None
        (plain,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), labels), x)
        if not isinstance(front, nn.Identity):
            assert torch.equal(slopes[-1], slopes[0]) and not torch.equal(plain, slopes[0])


def test_a_late_transfer_meets_only_images_that_all_else_left() -> None:
    stages: dict[str, Any] = {"apgd_scaled": {"steps": 2}, "square": {"queries": 2}}
    late = stages | {"transfer": {"steps": 10, "relative_step": 0.2}, "transfer_last": True}
    helpers = Helpers(surrogates={"other": honest(1), "twin": honest(2)})
    before = run(honest(), [0.12], stages)
    after = run(honest(), [0.12], late, helpers=helpers)
    assert before.fooled_by is not None and after.fooled_by is not None
    by_transfer = after.fooled_by == LATE_TRANSFER
    assert by_transfer.any() and before.correct[by_transfer].all()
    assert torch.equal(after.correct | by_transfer, before.correct)
    assert torch.equal(after.fooled_by.masked_fill(by_transfer, 0), before.fooled_by)
    several = run(honest(), [0.06, 0.12], late, helpers=helpers)
    assert not (several.correct[1] & ~several.correct[0]).any()
    assert list(several.checks["stages"]) == ["apgd_scaled", "square", "transfer"]
    content = {
        "keys": {"rule": "bp", "attack": "cascade", "gradient": "exact"},
        "metrics": [metric.__dict__ for metric in attack_metrics(several, [0.06, 0.12])],
        "checks": several.checks,
        "settings": {"epsilons": [0.06, 0.12]},
    }
    outcomes = attack_outcomes(several, torch.arange(80))
    assert mistake(json.loads(json.dumps(content)), outcomes) is None
    assert kinds("cascade", late) == {"scale_free", "gradient_free", "transfer"}


def test_convergence_on_a_sample_estimates_the_fall_of_all() -> None:
    settings = {"apgd_scaled": {"steps": 1}}
    every, whole, sample = (
        run(honest(), [0.1], settings, check_convergence=True, convergence_images=most).checks["unconverged"]
        for most in (None, 80, 20)
    )
    assert every == whole > 0
    assert sample == pytest.approx(every, abs=0.1)


def test_a_single_image_of_a_sample_counts_for_itself_alone() -> None:
    falls = torch.zeros(2, 10, dtype=torch.float64)
    falls[0, 3] = 2.5
    falls[1, [3, 4]] = 2.5
    assert fallen_shares(falls) == [0.1, 0.5]
