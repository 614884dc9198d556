"""The audit of models whose truth is known, and that it goes on where it was stopped."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import creditflow as cf
from creditflow.core.errors import UserError
from creditflow.instrument import run
from known_models import BesideSteps, Scaled, attacked, honest, lying, spiking
from lies import ForgetsGradient, Rounding

EPSILONS = [0.05, 0.1]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def audit(models: Any, n_images: int = 60, **options: Any) -> cf.AuditResult:
    images, labels = attacked(n_images)
    return cf.audit(models, images, labels, **{"epsilons": EPSILONS, "budget": "quick", "progress": False} | options)


@pytest.fixture(scope="module")
def scaled() -> cf.AuditResult:
    """An honest network and the same one with huge logits."""
    return audit({"mine": Scaled(honest(), 1e4).eval(), "reference": honest()}, 120)


def test_huge_logits_are_no_robustness(scaled: cf.AuditResult) -> None:
    mine = scaled.table[scaled.table.model == "mine"]
    theirs = scaled.table[scaled.table.model == "reference"]
    assert (mine["accuracy pgd exact"] == mine.clean).all()  # plain PGD is blind
    assert np.allclose(mine.worst.to_numpy(), theirs.worst.to_numpy(), atol=0.02)
    assert list(mine.claim_verdict) == ["no claim", "masked"] or list(mine.claim_verdict) == ["masked", "masked"]
    assert not mine.net_effect.isin(["more robust"]).any()
    assert set(mine.gradient) == {"honest"} and mine.sound.all()


def test_the_verdict_comes_first_in_words(scaled: cf.AuditResult) -> None:
    text = str(scaled)
    assert text.startswith("mine at epsilon 0.05: accuracy in the worst case is ")
    assert "is masked" in text and "these networks only" in text
    assert text.index("masked") < text.index("worst case %")
    figure = scaled.figure()
    assert len(figure.axes) == 2 and figure.axes[0].get_title() == "epsilon 0.05"


def test_a_result_is_saved_whole_and_the_same_each_time(scaled: cf.AuditResult, tmp_path: Path) -> None:
    again = audit({"mine": Scaled(honest(), 1e4).eval(), "reference": honest()}, 120)
    for name, result in (("one", scaled), ("two", again)):
        result.save(tmp_path / name)
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {str(path) for path in files} >= {"table.csv", "report.html", "figure.png", "figure.svg"}
    for path in files:
        if path.suffix not in (".json", ".html"):  # these tell how long it took
            assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    page = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert page.index("masked") < page.index("<svg") < page.index("<table") < page.index("source_hash")
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org/", "")
    kept = np.load(tmp_path / "one" / "adversarial" / "mine-seed0.npz")
    images, labels = attacked(120)
    assert kept["images"].shape == (2, 120, 1, 8, 8) and np.array_equal(kept["labels"], labels)
    assert (np.abs(kept["images"] - images.numpy()).max((1, 2, 3, 4)) <= np.array(EPSILONS) + 1e-6).all()
    with torch.no_grad():
        predictions = honest()(torch.from_numpy(kept["images"]).reshape(-1, 1, 8, 8)).argmax(1)
    accuracy = (predictions.reshape(2, -1).numpy() == labels.numpy()).mean(1)
    assert np.allclose(accuracy, scaled.table[scaled.table.model == "mine"]["accuracy cascade exact"])
    table = pd.read_csv(tmp_path / "one" / "table.csv")
    assert list(table.model) == ["reference", "mine"] * 2


def test_a_lie_is_masked_and_the_worst_case_follows_the_exact_gradient() -> None:
    result = audit({"mine": lying(), "reference": honest()}, 200, epsilons=[0.1])
    mine, reference = (result.table[result.table.model == name].iloc[0] for name in ("mine", "reference"))
    assert (mine.gradient, reference.gradient) == ("surrogate", "honest")
    assert "1" in result.gradients["mine"].culprits
    assert mine["accuracy pgd own"] > mine["accuracy pgd exact"] + 0.2
    # Inside, the network is the honest one, so PGD through its exact gradient is the same attack.
    assert mine["accuracy pgd exact"] == reference["accuracy pgd exact"]
    assert mine.claim == "pgd own" and mine.claim_verdict == "masked"
    assert mine.net_effect == "no difference beyond 5 points" and abs(mine.difference) <= 0.02
    assert "surrogate" in str(result)


def test_steps_beside_a_lie_are_constants() -> None:
    result = audit({"mine": BesideSteps(lying()).eval(), "reference": honest()}, epsilons=[0.1])
    mine = result.table[result.table.model == "mine"].iloc[0]
    assert mine.gradient == "surrogate" and mine["accuracy pgd exact"] < mine["accuracy pgd own"] - 0.2


def test_without_a_derivative_attacks_that_need_none_decide() -> None:
    result = audit({"mine": spiking(), "reference": honest()}, 100, epsilons=[0.1])
    mine = result.table[result.table.model == "mine"].iloc[0]
    assert mine.gradient == "no useful gradient"
    assert mine.worst == min(mine.worst, mine["accuracy cascade own"], mine["accuracy cascade none"])
    assert np.isnan(mine.get("accuracy pgd exact", np.nan))
    assert "mine has no useful gradient" in str(result) and "It is an upper bound only." in str(result)
    assert mine.net_effect == "unresolved" and mine.claim_verdict in ("masked", "no claim", "unresolved")


class _Fails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no backward")


class FailingBackward(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Fails.apply(x)


@pytest.mark.parametrize("layer", [ForgetsGradient(), Rounding(), FailingBackward()])
def test_a_model_without_any_gradient_is_attacked_without_one(layer: nn.Module) -> None:
    model = nn.Sequential(layer, honest()).eval()
    result = audit({"mine": model, "reference": honest()}, 60, epsilons=[0.1])
    mine = result.table[result.table.model == "mine"].iloc[0]
    assert mine.gradient == "no useful gradient" and mine["accuracy pgd own"] == mine.clean
    assert "accuracy cascade own" not in mine  # there is nothing to follow
    assert mine.decided_by == "cascade" and mine.worst < mine.clean
    assert not mine.sound and "only an upper bound" in mine.reason and mine.net_effect == "unresolved"
    assert mine.claim_verdict in ("masked", "unresolved")


def test_one_model_alone_has_accuracies_and_soundness() -> None:
    result = audit(honest())
    assert list(result.table.model) == ["model"] * 2 and result.table.sound.all()
    assert (result.table.net_effect == "").all() and result.table.worst.is_monotonic_decreasing
    assert "No images were transferred" in str(result)


def test_several_networks_of_a_model_are_paired() -> None:
    members = [honest(seed) for seed in range(3)]
    result = audit({"mine": [lying(seed) for seed in range(3)], "reference": members}, 30, epsilons=[0.1])
    assert set(result.table.n_seeds) == {3} and set(result.table.scope) == {"any seed"}
    with pytest.raises(UserError, match="'mine' has 2 networks, the reference 'other' has 1"):
        audit({"mine": members[:2], "other": honest()}, reference="other")


def test_the_units_of_epsilons_are_those_of_the_bounds() -> None:
    class Bytes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return honest()(x / 255)

    images, labels = attacked(40)
    options: dict[str, Any] = {"budget": "quick", "progress": False, "batch_size": 40}
    unit = cf.audit(honest(), images, labels, epsilons=[0.1], **options)
    other = cf.audit(Bytes().eval(), images * 255, labels, epsilons=[25.5], bounds=(0, 255), **options)
    moved = cf.audit(
        nn.Sequential(nn.BatchNorm2d(1, affine=False), honest()).eval(),
        DataLoader(TensorDataset(images, labels), batch_size=16),
        epsilons=[0.1],
        preprocessing={"mean": [0.0], "std": [1.0]},
        **options,
    )
    assert list(other.table.epsilon) == [25.5]
    for result in (other, moved):
        assert abs(result.table.worst[0] - unit.table.worst[0]) <= 0.025


class StoppedError(Exception):
    """What a user's interrupt would be."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The attacks that run; a fourth one is stopped. Nothing is drawn."""
    attacks: list[str] = []
    attack = run._attacked

    def counted(*arguments: Any) -> Any:
        if len(attacks) == 3:
            raise StoppedError
        attacks.append(arguments[2].attack)
        return attack(*arguments)

    monkeypatch.setattr(run, "_attacked", counted)
    monkeypatch.setattr(cf.AuditResult, "save", lambda *arguments: None)
    return attacks


def test_a_stopped_audit_goes_on(tmp_path: Path, made: list[str], capsys: Any) -> None:
    models, options = {"mine": lying(), "reference": honest()}, {"epsilons": [0.1]}
    with pytest.raises(StoppedError):
        audit(models, 30, save=tmp_path, **options)
    assert made == ["pgd", "pgd", "apgd_scaled"]
    made.clear()
    again = audit(models, 30, save=tmp_path, **options)
    assert made == ["cascade", "pgd", "cascade"] and capsys.readouterr().err == ""
    made.clear()
    assert audit(models, 30, save=tmp_path, **options).table.equals(again.table) and made == []
    damaged = tmp_path / "records" / "mine" / "pgd" / "own" / "seed0.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    assert audit(models, 30, save=tmp_path, **options).table.equals(again.table)
    assert made == ["pgd"] and "is damaged or not whole; it is measured again" in capsys.readouterr().err
    with pytest.raises(StoppedError):
        audit(models, 30, save=tmp_path, epsilons=[0.05])
    assert "not the same: epsilons" in capsys.readouterr().err


def test_other_outputs_of_the_same_weights_are_another_model(tmp_path: Path, made: list[str], capsys: Any) -> None:
    for factor in (1.0, 1e4):  # no parameter, so that only outputs tell it
        made.clear()
        audit(Scaled(honest(), factor).eval(), 20, epsilons=[0.1], save=tmp_path)
        assert made == ["pgd", "cascade"]
    assert "not the same: model" in capsys.readouterr().err


def test_models_are_left_as_they_were() -> None:
    model = honest(1)
    model.train()  # nothing in it depends on the mode
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.random.get_rng_state()
    audit(model, 20, epsilons=[0.1])
    assert model.training and all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(generator, torch.random.get_rng_state())
    model.eval()
