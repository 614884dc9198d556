"""`exact_gradients` against autograd of the same computation without functions of the user's own."""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function, forward_ad
from torch.autograd.function import InplaceFunction, once_differentiable
from torch.utils.checkpoint import checkpoint

from creditflow.core.errors import UserError
from creditflow.derivatives import exact
from creditflow.derivatives.exact import exact_gradients
from creditflow.feedback.apply import apply_rule


def lie(ctx: Any, *gradients: Tensor) -> Tensor:
    """The backward pass of most functions below."""
    return torch.full(ctx.shape, 7.0, dtype=torch.float64)


class Combined(Function):
    """sin(x) w, with `ctx` in all its uses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, power: int, name: str = "") -> Tensor:
        assert ctx.needs_input_grad[:3] == (x.requires_grad, w.requires_grad, False)
        ctx.shape, ctx.power = x.shape, power
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, None, w)
        assert not torch.is_grad_enabled() or ctx.saved_tensors[0] is x
        return x.sin() * w**power

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return lie(ctx), ctx.saved_tensors[2] * 0, None, None


class Separate(Function):
    """The same in the style of `setup_context`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, w: Tensor, power: int = 2) -> Tensor:
        return x.sin() * w**power

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, w, power = inputs
        assert power == 2
        ctx.save_for_backward(x, w)
        ctx.save_for_forward(x, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return gradient * 7, gradient * 0, None

    @staticmethod
    def jvp(ctx: Any, x: Tensor, w: Tensor, power: None) -> Tensor:
        return x * 7


class Nested(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.shape = x.shape
        return combined(x, w, 1) + Separate.apply(x, w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return lie(ctx), None


class Several(Function):
    """Several outputs, tensors or not; the integers and one of the numbers are marked as not differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> tuple[Any, ...]:
        ordered, places = x.sort(-1)
        norm = w.exp()
        ctx.mark_non_differentiable(places, norm)
        ctx.shape = x.shape
        return ordered * w, places, "text", norm, None

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        return lie(ctx), None


class InPlace(InplaceFunction):
    """Doubles its argument in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.shape = x.shape
        return x.mul_(w)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return lie(ctx), None


class Frugal(Function):
    """sigmoid(x) x w, with intermediate results that are changed in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.shape = x.shape
        result = x.sigmoid()
        result.mul_(x).mul_(w)
        return result.exp_()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return lie(ctx), None


class Reversed(Function):
    """The identity that turns the gradient round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class View(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.t()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient.t()


#: Stored long before any context, as most libraries do.
combined, separate, reversed_ = Combined.apply, Separate.apply, Reversed.apply

#: Name -> (what a model computes with functions of its own, the same without any).
COMPUTED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "combined": (lambda x, w: combined(x, w, 2, "name"), lambda x, w: x.sin() * w**2),
    "separate": (separate, lambda x, w: x.sin() * w**2),
    "nested": (Nested.apply, lambda x, w: x.sin() * (w + w**2)),
    "several": (lambda x, w: _sum(Several.apply(x, w)), lambda x, w: x.sort(-1)[0] * w + w.exp()),
    "in place": (lambda x, w: InPlace.apply(x.exp() + 0, w), lambda x, w: x.exp() * w),
    "frugal": (Frugal.apply, lambda x, w: (x.sigmoid() * x * w).exp()),
    "returned": (lambda x, w: reversed_(x) * w, lambda x, w: x * w),
    "view": (lambda x, w: View.apply(x).t() * w, lambda x, w: x * w),
    "loop": (lambda x, w: combined(combined(x, w, 2), w, 2), lambda x, w: (x.sin() * w**2).sin() * w**2),
}


def _sum(outputs: tuple[Any, ...]) -> Tensor:
    """Uses the outputs of `Several`."""
    ordered, places, text, norm, empty = outputs
    assert not places.requires_grad and text == "text" and empty is None
    return ordered + norm


class Model(nn.Module):
    """A model of one parameter that computes `compute(x, w)`."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64))
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.w)


def points() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((4, 3), generator=generator, dtype=torch.float64).requires_grad_()


def gradients(model: nn.Module, x: Tensor | None = None) -> list[Tensor]:
    """The gradients of a curved loss with respect to the input and all parameters."""
    x = points() if x is None else x
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return list(torch.autograd.grad((model(x) ** 2).sum(), [x, *parameters], allow_unused=True))


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Tells whether lists are equal, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def close(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(first, second, strict=True))


@pytest.fixture(autouse=True)
def _all_is_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test leaves torch as it found it."""
    monkeypatch.setenv("PYTORCH_JIT", "0")  # forward mode would script decompositions that no test needs, for seconds
    places = [patch for patch in exact._patches() if patch.name != "_callback_from_stance"]
    originals = [vars(patch.owner).get(patch.name) for patch in places]
    yield
    assert [vars(patch.owner).get(patch.name) for patch in places] == originals


@pytest.mark.parametrize("name", COMPUTED)
def test_inside_autograd_differentiates_what_is_computed_and_outside_nothing_has_changed(name: str) -> None:
    model, plain = Model(COMPUTED[name][0]), Model(COMPUTED[name][1])
    lies, outputs = gradients(model), model(points())
    assert not torch.allclose(lies[0], gradients(plain)[0])  # it does lie
    with exact_gradients(model) as undone:
        assert torch.equal(model(points()), outputs)
        assert close(gradients(model), gradients(plain))
    assert undone.functions and not undone.constants
    assert all(name.startswith(f"{__name__}.") for name in undone.functions)
    assert all(torch.equal(a, b) for a, b in zip(lies, gradients(model), strict=True) if a is not None)


@pytest.mark.parametrize("name", ["combined", "separate", "nested", "several", "frugal", "returned"])
def test_second_derivatives_and_forward_mode_are_exact_too(name: str) -> None:
    model, plain = Model(COMPUTED[name][0]), Model(COMPUTED[name][1])
    direction = points().detach().cos()

    def products(network: nn.Module) -> list[Tensor]:
        x = points()
        (first,) = torch.autograd.grad((network(x) ** 3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad((first * direction).sum(), x)
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(network(forward_ad.make_dual(x.detach(), direction))).tangent
        return [second, tangent]

    with exact_gradients(model):
        assert close(products(model), products(plain))


def test_the_transforms_of_torch_func_are_exact_too() -> None:
    def derivatives(compute: Callable[..., Tensor]) -> list[Tensor]:
        x, w = points().detach(), torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64)
        per_example = torch.func.vmap(torch.func.grad(lambda row: (compute(row, w) ** 2).sum()))(x)
        tangent = torch.func.jvp(lambda x: compute(x, w), (x,), (x.cos(),))[1]
        hessian = torch.func.hessian(lambda row: (compute(row, w) ** 3).sum())(x[0])
        return [per_example, tangent, hessian]

    lies = derivatives(separate)
    plain = derivatives(COMPUTED["separate"][1])
    with exact_gradients():
        assert close(derivatives(separate), plain)
    assert same(derivatives(separate), lies) and not torch.allclose(lies[0], plain[0])


def test_an_argument_that_is_returned_becomes_a_tensor_of_its_own_as_outside() -> None:
    x = points()
    with exact_gradients():
        y = reversed_(x)
        assert y is not x and y.data_ptr() == x.data_ptr()
        assert torch.equal(torch.autograd.grad((y + x).sum(), y)[0], torch.ones(4, 3))  # 2 if y were x
        with torch.no_grad():
            assert reversed_(x) is not x and not reversed_(x).requires_grad


def test_a_stored_bound_method_and_an_apply_of_ones_own_are_undone() -> None:
    class Overridden(Reversed):
        @classmethod
        def apply(cls, *arguments: Any) -> Any:
            return super().apply(*arguments)

    x = points()
    for apply in (Overridden.apply, reversed_):
        assert torch.autograd.grad(apply(x).sum(), x)[0].unique().tolist() == [-1]
        with exact_gradients():
            assert torch.autograd.grad(apply(x).sum(), x)[0].unique().tolist() == [1]


class Hooked(nn.Module):
    """A network whose hooks, of every kind, spoil the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(3, 3, dtype=torch.float64) for _ in range(3))
        self.calls: list[str] = []
        self.spoil = True

    def spoiled(self, name: str, gradient: Tensor) -> Tensor:
        self.calls.append(name)
        return gradient * 5

    def arm(self) -> "Hooked":
        self.handles = [
            self.first.register_full_backward_hook(lambda m, i, o: (self.spoiled("full", i[0]),)),
            self.second.register_full_backward_pre_hook(lambda m, o: (self.spoiled("pre", o[0]),)),
            self.third.register_backward_hook(lambda m, i, o: tuple(self.spoiled("legacy", g) for g in i)),
            self.first.weight.register_hook(lambda g: self.spoiled("tensor", g)),
            self.first.weight.register_post_accumulate_grad_hook(self.amplify),
        ]
        return self

    def amplify(self, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self.calls.append("accumulated")
        parameter.grad *= 5

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.third(self.second(self.first(x)).tanh()))

    def end(self, x: Tensor) -> Tensor:
        if self.spoil:
            x.register_hook(lambda g: self.spoiled("inside", g)).remove()
            x.register_hook(lambda g: self.spoiled("inside", g))
        return x


def accumulated(model: nn.Module) -> list[Tensor]:
    x = points()
    model.zero_grad()
    (model(x) ** 2).sum().backward()
    return [x.grad, *(parameter.grad for parameter in model.parameters())]  # type: ignore[list-item]


@pytest.mark.filterwarnings("ignore:Using a non-full backward hook", "ignore:Using non-full backward hooks")
def test_backward_hooks_of_modules_and_tensors_are_left_out_and_come_back() -> None:
    torch.manual_seed(0)
    plain = Hooked()
    plain.spoil = False
    model = copy.deepcopy(plain).arm()
    model.spoil = True
    expected, lies = accumulated(plain), accumulated(model)
    assert len(set(model.calls)) == 6 and not torch.allclose(lies[0], expected[0])
    kept = [model.first._backward_hooks, model.first.weight._backward_hooks]
    contents = [dict(hooks) for hooks in kept]
    with exact_gradients(model), exact_gradients(model):
        model.calls.clear()
        assert same(accumulated(model), expected) and model.calls == []
        with exact_gradients(nn.Identity()):
            assert same(accumulated(model), expected)
    assert [model.first._backward_hooks, model.first.weight._backward_hooks] == kept and contents == kept
    assert same(accumulated(model), lies)
    with exact_gradients(model):
        for handle in model.handles:
            handle.remove()
    model.spoil = False
    assert same(accumulated(model), expected)


def _tripled(model: nn.Module) -> Tensor:
    """Whoever uses a model may hook its input and its output."""
    x = points()
    x.register_hook(lambda gradient: gradient * 1.5)
    outputs = model(x)
    outputs.register_hook(lambda gradient: gradient * 2)
    return torch.autograd.grad((outputs**2).sum(), x)[0]


def test_global_hooks_and_hooks_of_strangers_stay_for_whatever_is_not_the_model() -> None:
    model, stranger = Model(COMPUTED["returned"][0]), Model(COMPUTED["returned"][1])
    expected = gradients(stranger)
    seen: list[nn.Module] = []

    def hook(module: nn.Module, inputs: Any, outputs: Any) -> Any:
        seen.append(module)
        return tuple(gradient * 5 for gradient in inputs)

    handle = nn.modules.module.register_module_full_backward_hook(hook)
    try:
        with exact_gradients(model):
            assert close(gradients(model), expected) and seen == []
            assert torch.allclose(gradients(stranger)[0], expected[0] * 5) and seen == [stranger]
            assert torch.allclose(_tripled(model), expected[0] * 3)
        with exact_gradients():
            assert close(gradients(stranger), expected)
    finally:
        handle.remove()


@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpoints_work_and_functions_inside_are_undone(reentrant: bool) -> None:
    compute, plain = COMPUTED["loop"]
    model = Model(lambda x, w: checkpoint(compute, x, w, use_reentrant=reentrant))
    with exact_gradients(model):
        assert close(accumulated(model), accumulated(Model(plain)))
    assert same(accumulated(model), accumulated(Model(compute)))


def test_threads_of_the_engine_that_run_a_backward_pass_know_the_context() -> None:
    """The engine changes threads when backward passes are nested deeper than 60; on a GPU it always does."""
    threads = set()

    def deep(x: Tensor, depth: int) -> Tensor:
        threads.add(threading.get_ident())
        return checkpoint(deep, x, depth - 1, use_reentrant=True) if depth else reversed_(x)

    x = points()
    with exact_gradients():
        deep(x, 100).sum().backward()
    assert len(threads) > 1 and x.grad is not None and x.grad.unique().tolist() == [1]


def test_a_context_does_not_change_what_other_threads_do() -> None:
    model = Hooked().arm()
    results: list[list[Tensor]] = []

    def elsewhere() -> None:
        x = points()
        results.append([torch.autograd.grad(reversed_(x).sum(), x)[0], *gradients(model)])

    def run() -> list[Tensor]:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return results.pop()

    expected = run()
    with exact_gradients(model):
        inside = gradients(model)
        assert same(run(), expected) and expected[0].unique().tolist() == [-1]
        assert not torch.allclose(inside[0], expected[1])


def test_threads_that_enter_and_leave_contexts_do_not_disturb_each_other() -> None:
    wrong: list[tuple[bool, list[float]]] = []

    def work(enters: bool) -> None:
        for _ in range(100):
            x = points()
            with exact_gradients() if enters else nullcontext():
                gradient = torch.autograd.grad(reversed_(x).sum(), x)[0].unique().tolist()
            if gradient != [1.0 if enters else -1.0]:
                wrong.append((enters, gradient))

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_contexts_of_several_models_may_be_closed_in_any_order_and_after_errors() -> None:
    first, second = Model(COMPUTED["combined"][0]), Model(COMPUTED["nested"][0])
    second.w = first.w
    expected = [gradients(Model(COMPUTED[name][1])) for name in ("combined", "nested")]
    lies = [gradients(first)[0], gradients(second)[0]]
    with exact_gradients(first, second):
        assert close(gradients(first), expected[0]) and close(gradients(second), expected[1])
    with ExitStack() as outer:
        inner = ExitStack()
        outer.enter_context(exact_gradients(first))
        inner.enter_context(exact_gradients(second))
        outer.close()
        assert close(gradients(second), expected[1])
        inner.close()
        assert same([gradients(first)[0], gradients(second)[0]], lies)
    with pytest.raises(ZeroDivisionError), exact_gradients(first):
        raise ZeroDivisionError
    assert same([gradients(first)[0]], lies[:1])


def test_without_functions_of_the_users_own_nothing_changes_bit_for_bit() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(2, 2, 6, 6, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = gradients(copy.deepcopy(model), images)
        with exact_gradients(model) as undone:
            assert same(gradients(model, images), expected)
    assert not undone.functions


def test_feedback_alignment_of_this_project_becomes_backpropagation() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    images = torch.rand(2, 1, 6, 6, requires_grad=True)
    expected = gradients(model, images)
    for rule in ("fa", "usf", "frsf", "brsf"):
        view = apply_rule(model, rule, generator=torch.Generator().manual_seed(1))
        assert not torch.allclose(gradients(view, images)[0], expected[0])
        with exact_gradients(view):
            assert same(gradients(view, images), expected)


class Spike(Function):
    """A step with the gradient of something smooth in its place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x > 0).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Hidden(Function):
    """sin, by a way that the argument names."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, way: str) -> Tensor:
        if way == "no_grad":
            with torch.no_grad():
                return x.sin()
        if way == "detach":
            return x.detach().sin()
        if way == "data":
            return x.data.sin()
        if way == "numpy":
            return torch.from_numpy(x.numpy()).sin()
        if way == "leaf":
            return x.sin_()
        if way == "out":
            return torch.sin(x, out=torch.empty_like(x))
        raise RuntimeError(way)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        return gradient, None


@pytest.mark.parametrize("way", ["no_grad", "detach", "data", "numpy", "leaf", "out"])
def test_a_function_without_a_differentiable_forward_is_named_in_one_line(way: str) -> None:
    assert Hidden.apply(points().detach(), way).shape == (4, 3)
    with pytest.raises(UserError, match=rf"^[^\n]*{__name__}\.Hidden [^\n]*$"), exact_gradients():
        Hidden.apply(points(), way)
    with exact_gradients():
        assert Hidden.apply(points().detach(), way).shape == (4, 3)  # no gradient is asked for
        if way != "leaf":
            with pytest.raises(RuntimeError, match=r"^something else$"):
                Hidden.apply(points(), "something else")
    if way in ("detach", "data"):  # `no_grad` does not stop tangents
        with pytest.raises(UserError, match="Hidden"), exact_gradients(), forward_ad.dual_level():
            Hidden.apply(forward_ad.make_dual(points().detach(), torch.ones(4, 3, dtype=torch.float64)), way)


def test_a_step_function_counts_as_a_constant_on_demand() -> None:
    model = Model(lambda x, w: Spike.apply(x) * w + x**2)
    with pytest.raises(UserError, match=rf"{__name__}\.Spike carries no gradient"), exact_gradients(model):
        model(points())
    with exact_gradients(model, missing="zero") as undone:
        plain = Model(lambda x, w: (x > 0).to(x) * w + x**2)
        assert close(gradients(model), gradients(plain))
        with pytest.raises(UserError, match="Spike"), exact_gradients(model):
            model(points())
    assert undone.constants == {f"{__name__}.Spike"}


def test_an_argument_that_is_changed_too_early_is_told_with_the_name_of_the_function() -> None:
    with exact_gradients():
        start = points()
        x = start * 2
        y = combined(x, x.detach(), 1)
        x.add_(1)
        with pytest.raises(UserError, match=rf"needs an argument of {__name__}\.Combined as it was"):
            torch.autograd.grad(y.sum(), start)


def test_a_forward_pass_outside_cannot_give_an_exact_gradient_inside() -> None:
    x = points()
    y = reversed_(x)
    with pytest.raises(UserError, match=r"Reversed, whose forward pass ran outside"), exact_gradients():
        torch.autograd.grad(y.sum(), x)


def test_mistakes_are_told_in_one_line() -> None:
    no_module: Any = len
    with pytest.raises(UserError, match="takes torch modules, not builtin_function"), exact_gradients(no_module):
        pass
    unknown: Any = "none"
    with pytest.raises(UserError, match="choose from 'error', 'zero'"), exact_gradients(missing=unknown):
        pass


def test_compiled_models_run_uncompiled_inside() -> None:
    compute, plain = COMPUTED["combined"]
    model, expected = Model(compute), gradients(Model(plain))
    traced = []

    def backend(graph: Any, inputs: Any) -> Any:
        traced.append(graph)
        return graph.forward

    with exact_gradients(model):
        compiled = torch.compile(model, backend=backend)  # loads the compiler
        assert close(gradients(compiled), expected) and not traced
    lies = gradients(compiled)
    assert traced and not torch.allclose(lies[0], expected[0])
    with exact_gradients(model):
        assert close(gradients(compiled), expected)
    with exact_gradients(compiled):
        assert close(gradients(compiled), expected)
    assert same(gradients(compiled), lies)

    @torch.compile(backend=backend)
    def with_context(x: Tensor) -> Tensor:
        with exact_gradients(model):
            return model(x)

    with pytest.raises(UserError, match="enter it around the compiled function"):
        with_context(points())
