"""Whose gradient an attacker uses: fresh feedback weights on any network, surrogates, and options that contradict."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from creditflow.compute import randomness
from creditflow.compute.randomness import Streams
from creditflow.core.errors import UserError
from creditflow.feedback.apply import apply_rule, feedback_layers, feedback_state
from creditflow.models.build import ImageClassifier, ModelSpec, build_model
from creditflow.models.storage import save_model
from creditflow.stages import attacking
from creditflow.stages.measuring import chance_check

SPEC = ModelSpec("mlp", (1, 8, 8), 3, (0.3,), (0.2,), {"hidden": [50]})


def args_for(folder: Path, gradient: str, seed: int = 0, **others: Any) -> Namespace:
    chosen = {"surrogate": [], "expect_surrogate": [], "data": folder / "data"} | others
    return Namespace(model=folder / "model.safetensors", gradient=gradient, seed=seed, **chosen)


def trained(folder: Path, rule: str = "bp", seed: int = 0) -> ImageClassifier:
    """A model as a training of a rule leaves it, saved with the feedback weights of that training."""
    model = build_model(SPEC, "test", seed)
    view = apply_rule(model, rule, generator=Streams("finetune", seed).generator("feedback"))
    save_model(folder / "model.safetensors", model, rule=rule, feedback=feedback_state(view), seed=seed)
    return model


def input_gradient(network: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(torch.nn.functional.cross_entropy(network(x), labels, reduction="sum"), x)
    return gradient


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand((5, 1, 8, 8), generator=generator), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize(("gradient", "names"), [("through:frsf", ("frsf", 1)), ("through:frsf:4", ("frsf", 4))])
def test_a_bp_network_attacked_through_frsf_has_the_gradient_through_its_v(
    gradient: str, names: tuple[str, int], batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    model, (images, labels) = trained(tmp_path), batch
    hidden, head = model.backbone[1], model.head  # type: ignore[index]
    generator = randomness.generator("through", *names, 7)

    def feedback(weight: Tensor) -> Tensor:  # V = |U(-a, a)| sign(W), with Glorot's a
        bound = (6 / sum(weight.shape)) ** 0.5
        return ((2 * torch.rand(weight.shape, generator=generator) - 1) * bound).abs() * weight.sign()

    with torch.no_grad():
        below, above = feedback(hidden.weight), feedback(head.weight)
        active = hidden(((images - 0.3) / 0.2).flatten(1)) > 0
        error = model(images).softmax(1) - torch.nn.functional.one_hot(labels, 3)
        expected = ((error @ above) * active) @ below / 0.2
    view = attacking.attacker_view(args_for(tmp_path, gradient, 7), model)
    torch.testing.assert_close(input_gradient(view, images, labels).flatten(1), expected)
    assert torch.equal(view(images), model(images))
    exact = input_gradient(model, images, labels)
    assert torch.nn.functional.cosine_similarity(exact.flatten(), expected.flatten(), dim=0) < 0.99
    assert attacking.attacker_view(args_for(tmp_path, "exact", 7), model) is model


@pytest.mark.parametrize("rule", ["bp", "usf", "frsf", "brsf", "fa", "dfa", "kp", "wm"])
@pytest.mark.parametrize("scale", ["norm", "sigma"])
def test_fresh_feedback_weights_have_the_scale_of_the_networks_training(rule: str, scale: str, tmp_path: Path) -> None:
    model = trained(tmp_path)
    save_model(tmp_path / "model.safetensors", model, settings={"settings": {"scale": scale}})
    args = args_for(tmp_path, f"through:{rule}")
    layers = feedback_layers(attacking.attacker_view(args, model))
    drawing = attacking.helpers(args, model).views
    views = [layers] if drawing is None else [layers, *(feedback_layers(view) for view in drawing(2))]
    for view in views:
        ratios = [float(layer.feedback_weight().norm() / layer.weight.norm()) for _, layer in view]
        assert (ratios == pytest.approx([1.0] * len(ratios), rel=1e-5)) == (scale == "norm" or rule == "bp")


@pytest.mark.parametrize("rule", ["frsf", "brsf", "fa", "dfa"])
def test_draws_are_the_same_for_all_networks_and_differ_from_each_other_and_from_the_trainings(
    rule: str, tmp_path: Path
) -> None:
    def drawn(gradient: str, seed: int, model: ImageClassifier) -> Tensor:
        state = feedback_state(attacking.attacker_view(args_for(tmp_path, gradient, seed), model))
        return torch.cat([state[name].abs().flatten() for name in sorted(state) if state[name].dim() > 1])

    model, other = trained(tmp_path, rule), build_model(SPEC, "test", 5)
    first = drawn(f"through:{rule}", 0, model)
    assert torch.equal(first, drawn(f"through:{rule}", 0, model))
    assert torch.equal(first, drawn(f"through:{rule}", 0, other))  # these magnitudes do not depend on W
    draws = [first, drawn(f"through:{rule}:2", 0, model), drawn(f"through:{rule}:3", 0, model)]
    draws += [drawn(f"through:{rule}", 1, model), drawn("feedback", 0, model)]
    correlation = torch.corrcoef(torch.stack(draws)).fill_diagonal_(0)
    assert len(first) > 300 and correlation.abs().max() < 0.2


def test_averaging_attacks_through_a_rule_that_redraws_get_views_with_draws_of_their_own(
    batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    model, (images, labels) = trained(tmp_path), batch

    def gradients(gradient: str) -> list[Tensor]:
        args = args_for(tmp_path, gradient)
        views = attacking.helpers(args, model).views
        assert views is not None
        through = [input_gradient(view, images, labels) for view in [attacking.attacker_view(args, model), *views(2)]]
        return [*through, *(input_gradient(view, images, labels) for view in views(1))]

    seen = [*gradients("through:brsf"), *gradients("through:brsf:2")]
    assert all(not torch.equal(one, two) for index, one in enumerate(seen) for two in seen[:index])
    assert all(torch.equal(one, two) for one, two in zip(seen, gradients("through:brsf"), strict=False))
    for gradient in ("through:frsf", "feedback", "exact", "none"):  # BP's own feedback is not redrawn, either
        assert attacking.helpers(args_for(tmp_path, gradient), model).views is None


def test_a_second_draw_of_a_rule_that_draws_nothing(tmp_path: Path) -> None:
    model = trained(tmp_path)
    attacking.attacker_view(args_for(tmp_path, "through:usf"), model)
    with pytest.raises(UserError, match="through:usf:2: usf draws no random numbers; use through:usf"):
        attacking.attacker_view(args_for(tmp_path, "through:usf:2"), model)
    with pytest.raises(UserError, match="unknown rule 'frfs'; did you mean 'frsf'"):
        attacking.attacker_view(args_for(tmp_path, "through:frfs"), model)


@pytest.mark.parametrize(
    ("uses", "gradient", "fitting"),
    [
        ((True, False), "none", "exact, own, feedback or through:<rule>"),
        ((True, True), "surrogate:twin", "exact, own, feedback or through:<rule>"),
        ((False, True), "none", "surrogate:twin or surrogate:other_seed"),
        ((False, True), "exact", "surrogate:twin or surrogate:other_seed"),
        ((False, False), "through:frsf", "none"),
        ((True, False), "through:frsf:2", None),
        ((True, True), "feedback", None),
        ((False, True), "surrogate:other_seed", None),
        ((False, False), "none", None),
    ],
)
def test_the_gradient_fits_what_the_attack_uses(uses: tuple[bool, bool], gradient: str, fitting: str | None) -> None:
    if fitting is None:
        attacking.check_gradient("mine", *uses, gradient)
        return
    with pytest.raises(UserError, match=f"^--gradient {gradient} does not fit the attack mine; use {fitting}$"):
        attacking.check_gradient("mine", *uses, gradient)


def test_surrogates_are_those_that_the_gradient_names(tmp_path: Path) -> None:
    model = trained(tmp_path)
    path = tmp_path / "model.safetensors"
    both = [("twin", path), ("other_seed", path)]
    found = attacking.helpers(args_for(tmp_path, "exact", surrogate=both), model).surrogates
    assert set(found) == {"twin", "other_seed"}
    found = attacking.helpers(args_for(tmp_path, "surrogate:other_seed", surrogate=both[1:]), model).surrogates
    assert set(found) == {"other_seed"}
    for given in ([], both, both[:1]):
        with pytest.raises(UserError, match="needs --surrogate other_seed=<model>, and no other surrogate"):
            attacking.helpers(args_for(tmp_path, "surrogate:other_seed", surrogate=given), model)
    with pytest.raises(UserError, match="--surrogate: a name is given twice"):
        attacking.helpers(args_for(tmp_path, "exact", surrogate=both[:1] * 2), model)
    expected = [("twin", {"rule": "frsf"})]
    with pytest.raises(UserError, match="rule frsf"):
        attacking.helpers(args_for(tmp_path, "exact", surrogate=both, expect_surrogate=expected), model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--surrogate", "model.safetensors"], "'model.safetensors' does not begin with twin= or other_seed="),
        (["--surrogate", "friend=."], "'friend=.' does not begin with twin= or other_seed="),
        (["--surrogate", "twin=nowhere"], "nowhere does not exist"),
        (["--expect-surrogate", "twin={"], "is not JSON"),
        (["--gradient", "through:frsf:1"], "the first draw, which has no number"),
        (["--gradient", "exakt"], "unknown gradient 'exakt'; did you mean 'exact'"),
    ],
)
def test_options_that_say_nothing_sensible(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    attacking.add_gradient_option(parser)
    attacking.add_surrogate_options(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(options)
    assert said in capsys.readouterr().err


def test_chance_is_the_share_of_the_commonest_label() -> None:
    assert chance_check(torch.tensor([0, 2, 2, 1, 2])) == {"chance": 0.6}
    assert chance_check(torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8)) == {}
