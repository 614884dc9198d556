"""Models of all kinds of PyTorch are audited, and none of them is changed or changes what it is given."""

import copy
import warnings
from collections.abc import Callable
from functools import cache

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import creditflow as cf
from known_models import attacked, honest


class InPlace(nn.Module):
    """Writes into what it is given, as users' preprocessing does."""

    def __init__(self) -> None:
        super().__init__()
        self.model = honest(1)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.model(x.sub_(0.5).mul_(2).add_(1).div_(2))
        return outputs


class InPlaceUnlessLeaf(InPlace):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.clone() if x.is_leaf else x)


def exported(model: nn.Module) -> nn.Module:
    example = (attacked(2)[0],)
    return torch.export.export(model, example, dynamic_shapes=({0: torch.export.Dim("n")},)).module()


def plain() -> nn.Module:
    return copy.deepcopy(honest(1))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(plain()),
    "traced": lambda: torch.jit.trace(plain(), attacked(2)[0]),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(plain())),
    "exported": lambda: exported(plain()),
    "in place": InPlace,
    "in place unless a leaf": InPlaceUnlessLeaf,
    "part of another": lambda: nn.Sequential(nn.Identity(), torch.jit.script(plain())).eval(),
}


@cache
def truth() -> pd.Series:
    images, labels = attacked(40)
    models = {"mine": plain(), "reference": honest()}
    table = cf.audit(models, images, labels, epsilons=[0.1], budget="quick", progress=False).table
    return table.set_index("model").loc["mine"]


@pytest.mark.parametrize(("kind", "batch_size"), [*((kind, None) for kind in KINDS), ("part of another", 16)])
def test_kinds_of_models(kind: str, batch_size: int | None) -> None:
    images, labels = attacked(40)
    before = images.clone()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of TorchScript as such
        model = KINDS[kind]()
        options = {"epsilons": [0.1], "budget": "quick", "progress": False, "batch_size": batch_size}
        table = cf.audit({"mine": model, "reference": honest()}, images, labels, **options).table
    assert torch.equal(images, before)
    row, true = table.set_index("model").loc["mine"], truth()
    assert row.gradient == "honest" and abs(row.worst - true.worst) <= 1 / 40 and row.clean == true.clean


def test_settings_of_the_caller_change_nothing() -> None:
    images, labels = attacked(40)

    def audited() -> str:
        return str(cf.audit(honest(1), images, labels, epsilons=[0.1], budget="quick", progress=False))

    usual = audited()
    with torch.no_grad():
        assert audited() == usual and not torch.is_grad_enabled()
    with torch.inference_mode():
        assert audited() == usual and torch.is_inference_mode_enabled()
    torch.set_default_dtype(torch.float64)
    try:
        assert audited() == usual and torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
