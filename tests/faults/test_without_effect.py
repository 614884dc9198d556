"""What is accepted has an effect: rules that would not be there, and outputs that would count as class 0."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from creditflow import apply_rule, feedback_state, load_feedback, load_model, save_model
from creditflow.attacks.attack import Attack, Candidates, Problem
from creditflow.attacks.hash_judge import Queries, get_hash_attack, run_hash_attack
from creditflow.attacks.judge import Helpers, choose_images, get_attack, run_attack
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.rule import Rule
from creditflow.populations.images import FlatImages
from creditflow.populations.measuring import accuracies
from creditflow.populations.network import Network, initial_parameters
from creditflow.retrieval.storage import Encoded
from creditflow.training.accuracy import correct_predictions
from creditflow.workflow.experiments import find
from creditflow.workflow.loading import load_experiments
from helpers import ROOT, small_model, subset

RULES = [rule for rule in plugins.names("rule") if rule != "bp"]


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


class Model(nn.Module):
    """A network whose use of its two layers is given as a function."""

    def __init__(self, use: Callable[["Model", Tensor], Tensor], **others: nn.Module) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("mask", torch.ones(4, 4))
        for name, module in others.items():
            self.add_module(name, module)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


def kept_list(net: Model, x: Tensor) -> Tensor:
    return net.two(F.linear(x, next(layer.weight for layer in net.children() if isinstance(layer, nn.Linear))))


OUTSIDE: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "functional": lambda net, x: F.linear(F.relu(net.two(x)), net.one.weight, net.one.bias),
    "tied": lambda net, x: net.two(F.linear(torch.tanh(net.one(x)), net.one.weight.t())),
    "matmul": lambda net, x: net.two(x) @ net.one.weight.T,
    "einsum": lambda net, x: torch.einsum("ni,oi->no", net.two(x), net.one.weight),
    "bilinear form": lambda net, x: net.two(x) * (x @ net.one.weight * x).sum(1, keepdim=True),
    "standardised": lambda net, x: F.linear(net.two(x), F.normalize(net.one.weight)),
    "masked": lambda net, x: F.linear(net.two(x), net.one.weight * net.mask),
    "sliced": lambda net, x: F.linear(net.two(x), net.one.weight[:4]),
    "stacked": lambda net, x: net.two(x) @ torch.stack([net.one.weight, net.two.weight]).sum(0),
    "detached": lambda net, x: F.linear(net.two(x), net.one.weight.detach()),
    "data": lambda net, x: F.linear(net.two(x), net.one.weight.data),
    "from a list": kept_list,
    "addmm": lambda net, x: torch.addmm(net.one.bias, net.two(x), net.one.weight.t()),
    "embedding": lambda net, x: net.two(x) + F.embedding(torch.zeros(len(x)).long(), net.one.weight),
    "plain forward": lambda net, x: nn.Linear.forward(net.one, net.two(x)),
    "in a checkpoint": lambda net, x: checkpoint(
        lambda y: F.linear(net.two(y), net.one.weight), x, use_reentrant=False
    ),
    "in a reentrant checkpoint": lambda net, x: checkpoint(
        lambda y: F.linear(net.two(y), net.one.weight), x, use_reentrant=True
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_weight_used_outside_of_its_layer_is_refused_in_the_first_pass(rule: str) -> None:
    for kind, use in OUTSIDE.items():
        for frozen in (False, True) if kind != "embedding" else (False,):
            view = apply_rule(Model(use).requires_grad_(not frozen), rule, generator=gen(), outputs=4)
            with pytest.raises(UserError, match=r"^the rule has no effect on layer '(one|two)'.* instead of"):
                view(torch.randn(3, 4, requires_grad=True)).sum().backward()
                pytest.fail(kind)


def test_each_mode_is_watched_until_its_first_pass_with_gradients() -> None:
    def use(net: Model, x: Tensor) -> Tensor:
        return net.two(net.one(x)) if net.training else net.two(F.linear(x, net.one.weight))

    view, x = apply_rule(Model(use), "usf"), torch.randn(3, 4)
    view(x).sum().backward()
    with torch.no_grad():
        view.eval()(x)  # no error goes down here, so nothing is claimed
    with pytest.raises(UserError, match="layer 'one'"):
        view(x)
    with pytest.raises(UserError, match="layer 'one'"):  # and again, as long as it holds
        view(x)
    view.train()(x)


FINE: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "called twice": lambda net, x: net.two(net.one(torch.tanh(net.one(x)))),
    "one is unused": lambda net, x: net.two(x),
    "called by forward": lambda net, x: net.two.forward(net.one.forward(x)),
    "a penalty": lambda net, x: net.two(net.one(x)) + 0.1 * net.one.weight.norm() + (net.two.weight**2).mean(),
    "its type and shape": lambda net, x: net.two(net.one(x.to(net.one.weight.dtype)).view(-1, len(net.one.weight))),
    "type_as": lambda net, x: net.two(net.one(x.type_as(net.one.weight))),
    "an average of weights": lambda net, x: net.two(net.one(x)) + 0 * torch.zeros_like(net.one.weight).sum(),
    "part without gradients": lambda net, x: net.two(torch.no_grad()(net.one)(x)),
    "a hidden checkpoint": lambda net, x: net.two(checkpoint(net.one, x, use_reentrant=False)),
    "a reentrant checkpoint": lambda net, x: net.two(checkpoint(net.one, x, use_reentrant=True)),
    "another layer takes it, too": lambda net, x: net.other(net.two(net.one(x))),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_is_fine_goes_on_working(rule: str) -> None:
    for use in FINE.values():
        plain = Model(use, other=nn.Linear(4, 4, bias=False))
        plain.other.weight = plain.one.weight  # both are layers with the rule
        view, x = apply_rule(plain, rule, generator=gen(), outputs=4), torch.randn(3, 4, requires_grad=True)
        for net in (view, view.eval(), view.train()):
            torch.testing.assert_close(net(x), plain(x))
            net(x).sum().backward()


def test_a_view_whose_layers_never_run_is_refused() -> None:
    elsewhere = nn.Linear(4, 4)
    view = apply_rule(Model(lambda net, x: elsewhere.forward(x)), "fa", generator=gen())
    with pytest.raises(UserError, match="did not call any of the 2 layers that the rule is on, such as 'one'"):
        view(torch.randn(3, 4))


def test_a_function_that_still_calls_the_users_model_is_noticed() -> None:
    plain = Model(lambda net, x: net.two(x))
    plain.use = lambda net, x: net.two(plain.one(x))  # a closure is not copied: it holds the layer without the rule
    with pytest.raises(UserError, match="no effect on layer 'one'"):
        apply_rule(plain, "fa", generator=gen())(torch.randn(3, 4))


def test_a_pass_that_fails_leaves_nothing_behind() -> None:
    view = apply_rule(Model(lambda net, x: net.two(net.one(x))), "usf")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            view(torch.randn(3, 5))
    assert torch.overrides._get_current_function_mode() is None
    view(torch.randn(3, 4)).sum().backward()
    assert torch.overrides._get_current_function_mode() is None


def test_the_windows_of_swin_are_refused() -> None:
    from creditflow.compute.torchvision_import import torchvision

    attention = torchvision.models.swin_transformer.ShiftedWindowAttention(8, [2, 2], [0, 0], 2)
    with pytest.raises(UserError, match=r"no effect on layer 'qkv' and 1 more: .*in linear"):
        apply_rule(attention, "fa", generator=gen())(torch.randn(1, 4, 4, 8))


def test_graphs_of_torch_fx_take_rules() -> None:
    traced = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)))
    view = apply_rule(traced, "fa", generator=gen())
    view(torch.randn(3, 4)).sum().backward()
    assert view.get_parameter("0.weight") is traced.get_parameter("0.weight")


@pytest.mark.slow  # the compiler takes seconds to be imported
def test_a_compiled_model_takes_rules() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), backend="eager")
    x = torch.randn(3, 4, requires_grad=True)
    views = [apply_rule(net, "fa", generator=gen()) for net in (compiled, compiled._orig_mod)]
    for (a,), (b,) in [[torch.autograd.grad(view(x).square().sum(), x) for view in views]]:
        torch.testing.assert_close(a, b)


class Own(nn.Linear):
    """A user's subclass."""


class Pool2(nn.Module):
    """A container of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2)})])


def replaced() -> nn.Module:
    layer = nn.Linear(4, 4)
    layer.forward = partial(nn.Linear.forward, layer)  # type: ignore[method-assign]
    return nn.Sequential(layer)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "weight norm": (lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4))), "computed from other tensors"),
    "spectral norm": (lambda: nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(4, 4, 1))), "computed from other tensors"),
    "pruned": (
        lambda: nn.Sequential(prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)),
        "computed from other tensors",
    ),
    "parametrised": (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 4))), "ParametrizedLinear"),
    "scripted": (lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 4))), "layer '0' is a scripted or traced"),
    "all scripted": (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 4))), "the model is a scripted or traced"),
    "traced": (lambda: torch.jit.trace(nn.Linear(4, 4), torch.ones(1, 4)), "scripted or traced"),
    "frozen": (lambda: torch.jit.freeze(torch.jit.script(nn.Linear(4, 4).eval())), "scripted or traced"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear}),
        "quantised",
    ),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(4)), "type LazyLinear"),
    "subclass": (lambda: nn.Sequential(Own(4, 4)), "type Own"),
    "attention": (Pool2, "layer 'blocks.0.attention' of type MultiheadAttention"),
    "replaced forward": (replaced, "layer '0' of type Linear, whose forward was replaced"),
    "nothing to put it on": (lambda: nn.Sequential(nn.Conv1d(4, 4, 1)), "no Linear or Conv2d"),
    "a class": (lambda: nn.Linear, "not on the class Linear; call it first"),
    "no module": (lambda: torch.relu, "not on builtin_function_or_method"),
    "nothing": (lambda: None, "not on NoneType"),
    "not copied": (lambda: nn.Sequential(nn.Linear(4, 4), WithGenerator()), "cannot be copied"),
}


class WithGenerator(nn.Module):
    """A module that cannot be copied."""

    def __deepcopy__(self, memo: object) -> "WithGenerator":
        raise TypeError("cannot copy\na lock")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_rule_cannot_hold_for_is_refused_when_it_is_applied(kind: str) -> None:
    make, message = REFUSED[kind]
    model = make()
    for rule in RULES:
        with pytest.raises(UserError, match=message) as refused:
            apply_rule(model, rule, generator=gen(), outputs=4)
        assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore")
def test_other_layers_may_have_the_old_weight_norm() -> None:
    plain = nn.Sequential(nn.utils.weight_norm(nn.Conv1d(4, 4, 1)), nn.Linear(4, 3))
    for rule in ("bp", "fa"):
        view = apply_rule(plain, rule, generator=gen())
        x = torch.randn(2, 4, 4)
        view(x).sum().backward()
        torch.testing.assert_close(view(x), plain(x))
        assert plain[0].weight_g.grad is not None


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "rule of a wrong type": (lambda: apply_rule(nn.Linear(2, 2), 3), "the id of a rule or a Rule, not int"),  # type: ignore[arg-type]
    "rule's class": (lambda: apply_rule(nn.Linear(2, 2), Rule), "not type"),  # type: ignore[arg-type]
    "state of a wrong type": (lambda: apply_rule(nn.Linear(2, 2), "fa", state=[1]), "not list"),  # type: ignore[arg-type]
    "state of numbers": (lambda: apply_rule(nn.Linear(2, 2), "fa", state={"feedback_weight": 1}), "tensors by name"),  # type: ignore[dict-item]
    "state of no module": (lambda: feedback_state(3), "not on int"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_arguments_end_in_one_line(kind: str) -> None:
    call, message = WRONG[kind]
    with pytest.raises(UserError, match=message):
        call()


def beyond(value: float) -> Callable[[Tensor], Tensor]:
    """Returns what breaks logits of images that were perturbed: subset() has no odd pixels beyond their bytes."""

    def broken(images: Tensor) -> Tensor:
        moved = ((images * 255 - (images * 255).round()).abs() > 1e-3).flatten(1).any(1, keepdim=True)
        return torch.where(moved, torch.tensor(value), torch.tensor(0.0))

    return broken


class Breaking(nn.Module):
    """Logits that are not finite at perturbed images alone."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.net, self.broken = small_model(4), beyond(value)

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + self.broken(images)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", plugins.names("attack"))
def test_outputs_that_break_at_perturbed_images_end_the_job(name: str, value: float) -> None:
    attack, data = get_attack(name), subset(n_classes=4)
    stages: dict[str, Any] = {"transfer": {}, "apgd_scaled": {}, "square": {}} if name == "cascade" else {}
    settings = plugins.settings_class("attack", name).model_validate(stages)
    broken = Breaking(value)
    helpers = Helpers({"twin": small_model(4)}) if attack.uses_surrogate else None
    epsilons = [1, 2] if attack.norm == "l0" else [0.103, 0.207]
    with pytest.raises(UserError, match=f"^attack {name}, .*epsilon.*: the model's outputs are not finite") as ended:
        run_attack(
            attack, settings, broken, data, choose_images(data, 6), epsilons, batch_size=6, seed=0, helpers=helpers
        )
    assert "\n" not in str(ended.value)
    assert not broken._forward_hooks


def test_the_judge_names_the_epsilon_and_a_surrogate_is_watched_too() -> None:
    def propose(problem: Problem, epsilons: Sequence[float], settings: object) -> Candidates:
        return Candidates([problem.images, (problem.images + 0.1003).clamp(0, 1)])

    data = subset(n_classes=4)
    blind = Attack(norm="linf", uses_gradient=False, propose=propose, name="blind")
    with pytest.raises(UserError, match=r"^attack blind, epsilon 0.2: the model's outputs .* at 6 perturbed images"):
        run_attack(blind, None, Breaking(torch.nan), data, choose_images(data, 6), [0, 0.2], batch_size=6, seed=0)
    with pytest.raises(UserError, match=r"^attack transfer, epsilon 0.103: the surrogate's outputs"):
        run_attack(
            get_attack("transfer"),
            plugins.settings_class("attack", "transfer")(),
            small_model(4),
            data,
            choose_images(data, 6),
            [0.103],
            batch_size=6,
            seed=0,
            helpers=Helpers({"twin": Breaking(torch.nan)}),
        )


@pytest.mark.parametrize("name", plugins.names("hash_attack"))
def test_hash_codes_of_outputs_that_break_end_the_job(name: str) -> None:
    data = subset()
    queries = Queries(data, torch.arange(6), Encoded(torch.ones(9, 4, dtype=torch.int8), torch.arange(9) % 3))
    settings: Any = plugins.settings_class("hash_attack", name)()
    for model, message in [
        (Breaking(torch.nan), f"^attack {name}, epsilon 0.103: the model's outputs are not finite"),
        (nn.Sequential(small_model(4), nn.Hardtanh(torch.nan, torch.nan)), "outputs are not finite"),
    ]:
        with pytest.raises(UserError, match=message):
            run_hash_attack(get_hash_attack(name), settings, model, queries, [0.103], batch_size=6, seed=0)


def test_clean_outputs_that_are_not_finite_are_no_accuracy() -> None:
    model = small_model()
    with torch.no_grad():
        model.head.bias[1] = torch.inf
    with pytest.raises(UserError, match=r"not finite .* at clean images"):
        correct_predictions(model, subset())


def test_a_member_of_a_population_whose_outputs_are_not_finite_has_no_accuracy() -> None:
    network = Network((4, 3, 2))
    single = initial_parameters(network, "default", gen())
    parameters = {name: torch.stack([value, value]) for name, value in single.items()}
    parameters["bias2"][1, 0] = torch.inf
    data = FlatImages(torch.randint(0, 255, (5, 4), dtype=torch.uint8), torch.zeros(5).long(), 2)
    measured = accuracies(network, parameters, data, torch.float64)
    assert measured.isfinite().tolist() == [True, False]


class MyNet(nn.Module):
    """A module that is no creditflow model."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            lambda folder: (folder / "m.safetensors", MyNet()),
            "MyNet can be loaded again only by what makes it; give factory=",
        ),
        (lambda folder: (folder / "m.safetensors", None), "not NoneType"),
        (lambda folder: (3, small_model()), "a text or a Path, not int"),
        (lambda folder: (folder, small_model()), "is a folder"),
        (lambda folder: (folder / "file/m.safetensors", small_model()), "cannot be written"),
        (lambda folder: (folder / "m.json", small_model()), "ends in .safetensors"),
        (lambda folder: (folder / "m.pt", small_model()), "ends in .safetensors"),
    ],
)
def test_models_that_cannot_be_saved_end_in_one_line(
    arguments: Callable[[Path], tuple[Any, Any]], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=message) as refused:
        save_model(*arguments(tmp_path))
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": 3}, "rule is the id"),
        ({"feedback": [1]}, "feedback is what"),
        ({"feedback": {"a": 1}}, "feedback is what"),
        ({"spec": 1}, "the name 'spec'"),
        ({"seed": {1, 2}}, "are no JSON"),
        ({"loss": float("nan")}, "are no JSON"),
    ],
)
def test_facts_that_cannot_be_saved_end_in_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        save_model(tmp_path / "m.safetensors", small_model(), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("load", [load_model, load_feedback])
def test_damaged_files_that_may_be_the_only_ones(load: Callable[[Any], Any], tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_model(path, small_model())
    whole = {name: path.with_suffix(name).read_bytes() for name in (".safetensors", ".feedback.safetensors", ".json")}
    damages: list[tuple[str, bytes | None]] = [
        (name, damaged) for name, content in whole.items() for damaged in (None, b"", content[:-9], b"{}")
    ]
    for name, damaged in damages:
        for other, content in whole.items():
            path.with_suffix(other).write_bytes(content)
        victim = path.with_suffix(name)
        victim.unlink() if damaged is None else victim.write_bytes(damaged)
        if (load is load_model) == (name == ".feedback.safetensors") and name != ".json":
            continue  # it does not read this file
        with pytest.raises(UserError, match=str(tmp_path)) as refused:
            load(path)
        assert "delete" not in str(refused.value) and "\n" not in str(refused.value)
    for wrong in (3, None, tmp_path, tmp_path / "nothing.safetensors", tmp_path / "own.json"):
        with pytest.raises(UserError):
            load(wrong)


def test_published_weights_for_a_backbone_of_ones_own_are_refused_before_any_job(tmp_path: Path) -> None:
    keys = yaml.safe_load((ROOT / "config/experiments/quick.yaml").read_text(encoding="utf-8"))
    keys["pretrain"] = {"weights": "IMAGENET1K_V1"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    with pytest.raises(UserError, match="there are no published weights of the backbone 'lenet5'"):
        find(load_experiments(tmp_path), "own")
