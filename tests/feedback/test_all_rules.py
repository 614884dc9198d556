"""What a view promises, for every rule that there is. A rule is tested here as soon as its file exists."""

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from creditflow import apply_rule, feedback_state
from creditflow.core import plugins
from creditflow.core.errors import UserError
from creditflow.feedback.apply import feedback_layers, get_rule
from creditflow.feedback.proof import Proof

RULES = plugins.names("rule")
every_rule = pytest.mark.parametrize("rule", RULES)


class Net(nn.Module):
    """A convolution and two Linear layers; inputs (N, 2, 6, 6), outputs (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.body, self.head = nn.Linear(108, 5), nn.Linear(5, 3)
        self.checkpointed: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointed is not None:
            return self.rest(checkpoint(self.first, x, use_reentrant=self.checkpointed))
        return self.rest(self.first(x))

    def first(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(self.norm(self.conv(x)))

    def rest(self, hidden: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(hidden.flatten(1))))


def void(value: object) -> None:
    """Returns nothing: a hook that returns something replaces the output."""


def gen() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def model() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def images(n: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn((n, 2, 6, 6), generator=gen()).to(dtype)


def gradients(view: nn.Module, x: Tensor) -> list[Tensor]:
    """Returns output, gradient of the images, and gradients of the parameters that require one."""
    x = x.clone().requires_grad_()
    output = view(x)
    wanted = [x, *(parameter for parameter in view.parameters() if parameter.requires_grad)]
    return [output.detach(), *torch.autograd.grad(output.float().square().sum(), wanted)]


def by_definition(view: nn.Module, x: Tensor) -> list[Tensor]:
    """Returns the same, computed from V of each layer by plain operations of torch in one pass over the layers."""
    layers = dict(feedback_layers(view))
    direct = any(layer.rule.direct for layer in layers.values())

    def v_of(name: str) -> Tensor:
        layer = layers.get(name)
        return getattr(view, name).weight if layer is None else layer.feedback_weight()

    with torch.no_grad():
        before = view.norm(view.conv(x))
        first = nn.functional.softplus(before).flatten(1)
        hidden = torch.tanh(view.body(first))
        output = view.head(hidden)
        error = 2 * output
        delta_body = (error @ v_of("head")) * (1 - hidden**2)
        down = (error if direct else delta_body) @ v_of("body")
        scale = view.norm.weight / (view.norm.running_var + view.norm.eps).sqrt()
        passed = down.view_as(before) * before.sigmoid()
        raw = (view.conv(x) - view.norm.running_mean[:, None, None]) * (scale / view.norm.weight)[:, None, None]
        delta_conv = passed * scale[:, None, None]
        everywhere = error[:, :, None, None].expand(-1, -1, 6, 6) if direct else delta_conv
        grad_x = torch.nn.functional.conv_transpose2d(everywhere, v_of("conv"), padding=1)
        grad_conv = torch.nn.grad.conv2d_weight(x, view.conv.weight.shape, delta_conv, padding=1)
    by_name = {
        "conv.weight": grad_conv,
        "conv.bias": delta_conv.sum((0, 2, 3)),
        "norm.weight": (passed * raw).sum((0, 2, 3)),
        "norm.bias": passed.sum((0, 2, 3)),
        "body.weight": delta_body.T @ first,
        "body.bias": delta_body.sum(0),
        "head.weight": error.T @ hidden,
        "head.bias": error.sum(0),
    }
    named = [(name, parameter) for name, parameter in view.named_parameters() if parameter.requires_grad]
    return [output, grad_x, *(by_name[name] for name, _ in named)]


def close(ours: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@every_rule
@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_batch_of_any_size_gives_what_the_definition_gives(rule: str, n: int) -> None:
    view = apply_rule(model(), rule, generator=gen())
    close(gradients(view, images(n)), by_definition(view, images(n)), rtol=1e-4, atol=1e-5)


@every_rule
@pytest.mark.parametrize("copied", ["pickle", "torch.save", "deepcopy"])
def test_a_copy_of_a_view_works_like_the_view_and_is_independent_of_it(rule: str, copied: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    gradients(view, images())
    if copied == "torch.save":
        buffer = io.BytesIO()
        torch.save(view, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    else:
        other = pickle.loads(pickle.dumps(view)) if copied == "pickle" else copy.deepcopy(view)
    for ours, expected in zip(gradients(other, images()), gradients(view, images()), strict=True):
        assert torch.equal(ours, expected)
    state = {name: tensor.clone() for name, tensor in feedback_state(view).items()}
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    gradients(other, images())
    assert all(torch.equal(state[name], tensor) for name, tensor in feedback_state(view).items())
    assert not torch.equal(other.head.weight, view.head.weight)


@every_rule
def test_every_rule_takes_the_norm_of_w_for_its_scale(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen(), scale="norm")
    for _, layer in feedback_layers(view):
        assert float(layer.feedback_weight().norm()) == pytest.approx(float(layer.weight.detach().norm()), rel=1e-5)
    expected = gradients(view, images())
    close(expected, by_definition(view, images()), rtol=1e-4, atol=1e-5)
    fresh = apply_rule(model(), rule, state=feedback_state(view))
    for other in (pickle.loads(pickle.dumps(view)), copy.deepcopy(view), fresh):
        assert all(map(torch.equal, gradients(other, images()), expected))


@every_rule
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("converted", ["model", "view"])
def test_other_precisions(rule: str, dtype: torch.dtype, converted: str) -> None:
    if converted == "model":
        view = apply_rule(model().to(dtype), rule, generator=gen())
    else:
        view = apply_rule(model(), rule, generator=gen()).to(dtype)
    ours = gradients(view, images(dtype=dtype))
    assert {tensor.dtype for tensor in ours} == {dtype}
    wide = apply_rule(copy.deepcopy(model()), rule, generator=gen())
    expected = gradients(wide, images())
    for one, other in zip(ours, expected, strict=True):
        assert (one.float() - other).norm() <= 0.1 * other.norm() + 1e-3
    with torch.no_grad():
        view.head.weight.mul_(0.5)
    assert all(tensor.isfinite().all() for tensor in gradients(view, images(dtype=dtype)))


@every_rule
def test_a_view_that_was_moved_has_not_been_updated(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    before = feedback_state(view)
    view.double().float().to(memory_format=torch.channels_last)
    for name, tensor in feedback_state(view).items():
        torch.testing.assert_close(tensor, before[name])


@every_rule
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_change_nothing(rule: str, reentrant: bool) -> None:
    view = apply_rule(model(), rule, generator=gen())
    expected = []
    for checkpointed in (None, reentrant):
        view.checkpointed = checkpointed
        view.zero_grad()
        x = images().requires_grad_()
        (view(x).square().sum() + view(2 * x[:3]).sum()).backward()
        expected.append([x.grad, *(parameter.grad for parameter in view.parameters())])
    close(expected[1], expected[0])


@every_rule
def test_state_dicts_go_in_and_out(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    state, feedback = copy.deepcopy(view.state_dict()), feedback_state(view)
    assert list(state) == list(model().state_dict())
    expected = gradients(view, images())
    other = apply_rule(Net().eval(), rule, state=feedback if feedback else {})
    other.load_state_dict(state)
    fresh = apply_rule(other_plain(state), rule, state=feedback)
    close(gradients(fresh, images()), expected)
    assert torch.equal(other(images()), view(images()))
    assert get_rule(rule).after_update is not None or all(
        torch.equal(a, b) for a, b in zip(gradients(other, images()), expected, strict=True)
    )


def other_plain(state: dict[str, Tensor]) -> Net:
    net = Net().eval()
    net.load_state_dict(state)
    return net


@every_rule
def test_without_gradients_a_view_is_the_model(rule: str) -> None:
    plain = model()
    view = apply_rule(plain, rule, generator=gen())
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(view(images()), plain(images()))
            assert torch.equal(view(images(0)), plain(images(0)))


@every_rule
@pytest.mark.parametrize("frozen", ["conv", "body", "head", "conv body head norm"])
def test_frozen_parameters_get_no_gradient_and_change_no_other(rule: str, frozen: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    for name in frozen.split():
        getattr(view, name).requires_grad_(False)
    close(gradients(view, images()), by_definition(view, images()), rtol=1e-4, atol=1e-5)


@every_rule
def test_functional_call_uses_the_weights_that_it_is_given(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    own = dict(view.named_parameters())

    def called(parameters: dict[str, Tensor]) -> list[Tensor]:
        x = images().requires_grad_()
        output = torch.func.functional_call(view, parameters, (x,))
        return list(torch.autograd.grad(output.square().sum(), [x, *parameters.values()]))

    close(called(own), gradients(view, images())[1:])
    twice = {name: (2 * tensor).detach().requires_grad_() for name, tensor in own.items()}
    ours, state = called(twice), feedback_state(view)
    scaled = model()
    scaled.load_state_dict(twice, strict=False)
    if get_rule(rule).after_update is None:  # a rule that reacts to an update takes other weights for one
        close(ours, gradients(apply_rule(scaled, rule, state=state), images())[1:])
    else:
        assert all(tensor.isfinite().all() for tensor in ours)


@every_rule
@pytest.mark.parametrize("transform", ["grad", "vmap", "vmap of grad", "jvp", "dual numbers"])
def test_transforms_of_torch_func_work_or_are_refused_alike(rule: str, transform: str) -> None:
    plain = model()
    view = apply_rule(plain, rule, generator=gen())

    def loss(net: nn.Module, x: Tensor) -> Tensor:
        return net(x[None] if x.dim() == 3 else x).square().sum()

    def run(net: nn.Module) -> object:
        x = images()
        if transform == "dual numbers":
            with torch.autograd.forward_ad.dual_level():
                return torch.autograd.forward_ad.unpack_dual(
                    loss(net, torch.autograd.forward_ad.make_dual(x, x))
                ).tangent
        if transform == "jvp":
            return torch.func.jvp(lambda x: loss(net, x), (x,), (x,))[1]
        of_one = torch.func.grad(lambda x: loss(net, x))
        if transform == "grad":
            return of_one(x)
        return torch.func.vmap(of_one if "grad" in transform else lambda x: loss(net, x))(x)

    if get_rule(rule).exact:
        torch.testing.assert_close(run(view), run(plain))
    else:
        with pytest.raises(UserError, match=r"^a view works under no transform"):
            run(view)
        gradients(view, images())  # and afterwards the view still works


@every_rule
def test_second_derivatives_exist_for_the_exact_gradient_only(rule: str) -> None:
    plain = model()
    view = apply_rule(plain, rule, generator=gen())

    def second(net: nn.Module) -> Tensor:
        x = images().requires_grad_()
        (first,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), x)[0]

    if get_rule(rule).exact:
        torch.testing.assert_close(second(view), second(plain))
    else:
        with pytest.raises(UserError, match=r"^the gradient of a rule has no derivative"):
            second(view)


@pytest.mark.slow  # the compiler takes seconds to be imported
@every_rule
def test_a_compiled_view_gives_what_the_view_gives(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    expected = gradients(view, images())
    close(gradients(torch.compile(view, backend="aot_eager"), images()), expected, rtol=1e-4, atol=1e-5)


@every_rule
def test_replicas_in_threads_have_passes_of_their_own(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    expected = gradients(view, images())
    batches = [images().requires_grad_(), images(3).requires_grad_()]
    both = threading.Barrier(2)
    view.norm.register_forward_hook(lambda *passed: void(both.wait(20)))

    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(view, batches))
    outputs[1].sum().backward()
    (ours,) = torch.autograd.grad(outputs[0].square().sum(), batches[0])
    torch.testing.assert_close(ours, expected[1])


@every_rule
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_in_both_half_precisions(rule: str, dtype: torch.dtype) -> None:
    results = []
    for enabled in (False, True):
        view = apply_rule(model(), rule, generator=gen())
        for _ in range(2):  # the second pass follows an update
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                result = gradients(view, images())
            with torch.no_grad():
                view.head.weight.mul_(0.9)
        results.append(result)
    expected, ours = results
    assert all((a.float() - b).norm() <= 0.1 * b.norm() + 1e-3 for a, b in zip(ours, expected, strict=True))


@every_rule
def test_what_was_proved_costs_nothing_later(rule: str) -> None:
    view = apply_rule(model(), rule, generator=gen())
    proofs = {id(hook.__self__): hook.__self__ for hook in view._forward_hooks.values() if hasattr(hook, "__self__")}
    proofs = [proof for proof in proofs.values() if isinstance(proof, Proof)]
    assert len(proofs) == (0 if get_rule(rule).exact else 1)
    view(images()), view.train()(images())
    assert all(proof.proved == {True, False} for proof in proofs)
