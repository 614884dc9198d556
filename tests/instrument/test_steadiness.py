"""Models that try to look robust: each behaves in one way when it is attacked, and in another way when it is judged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import creditflow as cf
from creditflow.core.errors import UserError
from known_models import Scaled, attacked, honest
from lies import ForgetsGradient

FAST: dict[str, Any] = {"epsilons": [0.1], "budget": "quick", "progress": False}


class Remembers(nn.Module):
    """The digits' network, which answers near an image that it has seen as it answered there.

    It does so after some calls, and with the first such image or with the last.
    """

    def __init__(self, *, after: int = 0, first: bool = True) -> None:
        super().__init__()
        self.model, self.after, self.first, self.calls = honest(), after, first, 0
        self.images, self.answers = torch.empty(0, 64), torch.empty(0, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        self.calls += 1
        if self.calls <= self.after:
            return logits
        flat = x.detach().flatten(1)
        near = torch.cdist(flat, self.images, p=torch.inf) <= 0.25
        order = torch.arange(len(self.images), 0, -1) if self.first else torch.arange(1, len(self.images) + 1)
        if len(self.images):
            known = (near * order).max(1)
            logits = torch.where(known.values[:, None] > 0, self.answers[known.indices], logits)
        if len(self.images) < 20000:
            self.images = torch.cat([self.images, flat])
            self.answers = torch.cat([self.answers, logits.detach()])
        return logits


class TellsTheJudge(nn.Module):
    """The digits' network for the judge, and another function where gradients are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.model = honest()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.flip(3)) if torch.is_grad_enabled() else self.model(x)


class LiesInLargeBatches(nn.Module):
    """The digits' network, whose gradient has the wrong sign in larger batches than those that a check looks at."""

    def __init__(self) -> None:
        super().__init__()
        self.model = honest()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x if len(x) <= 8 else 2 * x.detach() - x)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (LiesInLargeBatches(), "has another backward pass in large batches than in batches of 8"),
        (Remembers(), "depend on what it has seen before"),
        (Remembers(first=False), "depend on what it has seen before"),
        (Remembers(after=40), "depend on what it has seen before"),
        (TellsTheJudge(), "computes something else inside torch.no_grad"),
    ],
)
def test_a_model_that_does_not_always_compute_the_same_is_refused(model: nn.Module, words: str) -> None:
    images, labels = attacked(20)
    with pytest.raises(UserError, match=words):
        cf.audit({"mine": model.eval(), "reference": honest()}, images, labels, **FAST)


class Wavy(nn.Module):
    """The digits' network on x - s sin(32 pi x) / 32 pi, which is x itself at pixels of the digits."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.model, self.strength = honest(), strength

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x - self.strength * torch.sin(32 * torch.pi * x) / 3)


def test_records_of_a_network_that_is_another_one_beside_the_images_are_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights, class and answers at the images are the same; a number that is no parameter differs."""
    images, labels = attacked(40)
    first = cf.audit(Wavy(0.0).eval(), images, labels, save=tmp_path, **FAST)
    capsys.readouterr()
    second = cf.audit(Wavy(1.0).eval(), images, labels, save=tmp_path, **FAST)
    assert "not the same: model); it is measured again" in capsys.readouterr().err
    assert second.table.clean.equals(first.table.clean)
    again = cf.audit(Wavy(1.0).eval(), images, labels, save=tmp_path, **FAST)
    assert "measured again" not in capsys.readouterr().err and again.table.equals(second.table)


def test_copies_of_a_network_are_no_seeds() -> None:
    images, labels = attacked(20)
    with pytest.raises(UserError, match="networks 0 and 2 of model 'mine' are copies"):
        cf.audit(
            {"mine": [honest(1), honest(2), honest(1)], "reference": [honest(n) for n in (3, 4, 5)]},
            images,
            labels,
            **FAST,
        )


def test_further_models_take_neither_the_name_nor_the_place_of_others() -> None:
    images, labels = attacked(20)
    with pytest.raises(UserError, match="names that begin with 'surrogate ' are taken"):
        cf.audit({"surrogate a": honest(1), "reference": honest()}, images, labels, **FAST)
    untrained = {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)) for name in "abc"}
    result = cf.audit({"mine": honest(1), "reference": honest()}, images, labels, surrogates=untrained, **FAST)
    sources = [record.content["settings"]["surrogates"] for record in result.records if record.keys.attack == "cascade"]
    assert [next(iter(names)) for names in sources] == ["reference 0", "mine 0"]
    assert all(len(names) == 4 for names in sources)


def test_a_network_without_any_gradient_is_no_source_of_images() -> None:
    images, labels = attacked(20)
    models = {"mine": honest(1), "blind": nn.Sequential(ForgetsGradient(), honest(2)).eval(), "reference": honest()}
    result = cf.audit(models, images, labels, **FAST)
    sources = {
        record.keys.rule: list(record.content["settings"]["surrogates"])
        for record in result.records
        if record.content["settings"].get("surrogates")
    }
    assert sources == {"mine": ["reference 0"], "reference": ["mine 0"], "blind": ["mine 0"]}


class Rounded(torch.autograd.Function):
    """Rounds pixels to 16 values, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(15 * x) / 15

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class OfRounded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = honest()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(Rounded.apply(x))


def test_no_scale_of_the_logits_hides_the_own_gradient() -> None:
    """The same predictions, with logits that saturate the cross-entropy, meet the same attacks."""
    images, labels = attacked(60)
    worst = []
    for model in (OfRounded(), Scaled(OfRounded(), 1e4)):
        result = cf.audit({"mine": model.eval()}, images, labels, **FAST)
        assert result.gradients["mine"].verdict == "no useful gradient"
        assert ("cascade", "own") in set(zip(result.accuracies.attack, result.accuracies.gradient, strict=True))
        worst.append(float(result.table.worst.iloc[0]))
    assert worst[1] <= worst[0] + 0.05 < 0.8


class Constant(nn.Module):
    """Answers with the same class whatever it sees; its outputs do not depend on the image."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.bias, self.answer = nn.Parameter(3.0 * F.one_hot(torch.tensor(0), 10)), answer

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), -1) + self.answer(x)


@pytest.mark.parametrize("answer", [lambda x: 0, lambda x: 1e-3 * honest()(x)])
def test_a_constant_answer_is_not_robust(answer: Callable[[Tensor], Tensor]) -> None:
    """It cannot be fooled, but it has learnt nothing. (Here half of the images are zeros.)"""
    images, labels = attacked(400)
    zeros, others = (labels == 0).nonzero().flatten(), (labels == 1).nonzero().flatten()[:30]
    chosen = torch.cat([zeros, others])
    models = {"constant": Constant(answer).eval(), "reference": honest()}
    result = cf.audit(models, images[chosen], labels[chosen], epsilons=[0.5], budget="quick", progress=False)
    row = result.table[result.table.model == "constant"].iloc[0]
    assert row.difference > 0.3 and row.worst > 0.3
    assert row.net_effect == "unresolved" and row.claim_verdict == "unresolved"
    assert "constant: clean accuracy" in row.reason and "above chance" in row.reason
