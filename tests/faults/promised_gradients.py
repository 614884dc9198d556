"""What provokes the promised refusals of derivatives and of feedback rules; see test_promises.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from creditflow.core.errors import UserError
from creditflow.derivatives import arguments
from creditflow.derivatives.check import check_gradient
from creditflow.derivatives.exact import exact_gradients
from creditflow.feedback import draws, proof
from creditflow.feedback.apply import apply_rule, feedback_layers, feedback_state, get_rule
from creditflow.feedback.error import (
    PassError,
    check_first_order,
    check_no_transform,
    check_not_captured,
    first_order,
    refuse_script,
    refuse_tangents,
)
from creditflow.feedback.replaceable import check_model, replaceable_layers
from creditflow.feedback.rule import SIGMA, Rule, xavier_uniform
from creditflow.feedback.scaling import check_names, check_scale, layer_scale
from faults.promised_data import Promised
from lies import Reverse

X = torch.linspace(0, 1, 8).reshape(2, 4)
LABELS = torch.tensor([0, 2])


def network(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), *layers, nn.Linear(4, 3)).eval()


class Returns(nn.Module):
    """A model that returns whatever a function makes of its input."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.make = nn.Linear(4, 3), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.layer(x))


class Restless(nn.Module):
    """A model that draws random numbers from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.draw = nn.Linear(4, 3), iter(range(1, 1000))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y * next(self.draw)


def raising() -> object:
    raise ValueError("it is broken\nand says so in two lines")


def of_model(model: object) -> Any:
    return lambda f: check_gradient(model, X, LABELS)  # type: ignore[arg-type]


def of_images(images: object, labels: object = LABELS) -> Any:
    return lambda f: check_gradient(network(), images, labels)  # type: ignore[arg-type]


def outputs(value: object) -> Any:
    return lambda f: arguments.check_outputs(value, X)


def labels(value: object, loss: object = None, logits: Tensor | None = None) -> Any:
    return lambda f: arguments.check_labels(value, X, torch.zeros(2, 3) if logits is None else logits, loss)


def exactly(*models: Any, **options: Any) -> Any:
    def provoke(folder: Path) -> object:
        with exact_gradients(*models, **options):
            return None

    return provoke


def differentiated(model: nn.Module) -> Any:
    """Takes the gradient of a model inside the context."""

    def provoke(folder: Path) -> object:
        with exact_gradients(model):
            x = X.clone().requires_grad_()
            return torch.autograd.grad(model(x).sum(), x)

    return provoke


def backward_alone(folder: Path) -> object:
    x = X.clone().requires_grad_()
    total = Reverse.apply(x).sum()
    with exact_gradients():
        return torch.autograd.grad(total, x)


class _Hidden(torch.autograd.Function):
    """Leaves autograd for NumPy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Hidden.apply(x)
        return y


class _Overwriting(torch.autograd.Function):
    """Writes into its argument."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Overwriting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Overwriting.apply(x)
        return y


DERIVATIVES: dict[str, Promised] = {
    "derivatives.arguments.check_model": (
        UserError,
        [
            (lambda f: arguments.check_model(3), "must be a torch.nn.Module, not int"),
            (lambda f: arguments.check_model(nn.Sequential(nn.Dropout())), "call model.eval() first"),
            (lambda f: arguments.check_model(nn.BatchNorm2d(3)), "call model.eval() first"),
        ],
    ),
    "derivatives.arguments.check_images": (
        UserError,
        [
            (lambda f: arguments.check_images([1.0], network()), "must be a torch.Tensor of shape (N, ...), not list"),
            (lambda f: arguments.check_images(X.int(), network()), "use images.float() / 255"),
            (lambda f: arguments.check_images(X[:0], network()), "with at least one image"),
            (lambda f: arguments.check_images(X * float("nan"), network()), "leave these images out"),
            (lambda f: arguments.check_images(X, network().to("meta")), "use images.to('meta')"),
        ],
    ),
    "derivatives.arguments.check_outputs": (
        UserError,
        [
            (outputs([X]), "returns the logits only"),
            (outputs(torch.zeros(2, dtype=torch.int64)), "return the numbers before argmax"),
            (outputs(torch.zeros(2)), "it must return (N, K) logits"),
            (outputs(torch.zeros(3, 5)), "it must return (N, K) logits"),
            (outputs(torch.full((2, 3), float("inf"))), "check its weights and the range of pixels"),
        ],
    ),
    "derivatives.arguments.check_labels": (
        UserError,
        [
            (labels(LABELS, loss=3), "the loss must be a function of (outputs, labels), not int"),
            (labels(None, loss=sum), "pass labels="),
            (labels(LABELS[:1]), "one label for each of 2 images"),
            (labels(X), "pass loss= for others"),
            (labels(LABELS + 1), "labels count from 0"),
            (labels(LABELS - 1), "labels count from 0"),
        ],
    ),
    "derivatives.arguments.call": (
        UserError,
        [(lambda f: arguments.call(raising, "the loss fails"), "the loss fails: ValueError: it is broken")],
    ),
    "derivatives.check.check_gradient": (
        UserError,
        [
            (of_model("no model"), "must be a torch.nn.Module"),
            (of_model(Returns(lambda y: raising())), "the model cannot take images of shape [2, 4]"),
            (of_model(nn.Sequential(nn.Linear(4, 3), nn.Dropout())), "call model.eval() first"),
            (of_model(Returns(lambda y: y[:, 0])), "it must return (N, K) logits"),
            (of_model(Returns(lambda y: y / 0)), "check its weights"),
            (of_model(Restless()), "from the global generator of torch"),
            (of_images(X.double().int()), "use images.float() / 255"),
            (of_images(X[0]), "at least one image"),
            (of_images(X * float("nan")), "leave these images out"),
            (of_images(X, LABELS + 5), "labels count from 0"),
            (of_images(X, LABELS[:1]), "one label for each of 2 images"),
        ],
    ),
    "derivatives.exact.exact_gradients": (
        UserError,
        [
            (exactly("no model"), "give the modules in it"),
            (exactly(missing="nothing"), "choose from 'error', 'zero'"),
            (backward_alone, "run the forward pass inside the context, too"),
            (differentiated(network(Hidden())), "_Hidden"),
            (differentiated(nn.Sequential(Overwriting())), "_Overwriting"),
        ],
    ),
}


# --- feedback rules -----------------------------------------------------------------------------------------------


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def view(rule: str = "fa", model: nn.Module | None = None, **options: Any) -> nn.Module:
    return apply_rule(model or network(), rule, generator=generator(), **options)


def backward(model: nn.Module, loss: Callable[[Tensor], Tensor] = torch.sum, **options: Any) -> object:
    x = X.clone().requires_grad_()
    return torch.autograd.grad(loss(model(x)), x, **options)


def backward_from_within(folder: Path) -> object:
    """Takes the loss of what a layer of a view gives, where the rule needs the error at the view's output."""
    inner: list[Tensor] = []
    model = view("dfa")
    model.get_submodule("1").register_forward_hook(lambda module, given, output: inner.append(output))
    return backward(model, lambda y: inner[-1].sum())


class Tied(nn.Module):
    """An autoencoder that uses the weight of its layer once more, without the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(torch.tanh(self.code(x)), self.code.weight.T)


class Idle(nn.Module):
    """A model that never calls its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Lock:
    def __deepcopy__(self, memo: object) -> object:
        raise TypeError("a lock cannot be copied")


def holding(value: object) -> nn.Module:
    model = network()
    model.held = value  # type: ignore[assignment]
    return model


def pass_error(value: Tensor | None) -> object:
    error = PassError()
    error.value = value
    return error.for_images(2)


def traced(folder: Path) -> object:
    return torch.jit.trace(view(), X)


def in_a_transform(folder: Path) -> object:
    def looked_at(x: Tensor) -> Tensor:
        check_no_transform()
        return x.sum()

    return torch.func.grad(looked_at)(X)


def captured(folder: Path) -> object:
    def looked_at(x: Tensor) -> Tensor:
        check_not_captured(x)
        return x

    return torch.jit.trace(looked_at, X)


def twice_differentiated(folder: Path) -> object:
    decorated = first_order(lambda ctx, error: error)
    with torch.enable_grad():
        return decorated(None, X)


def reformed(change: Callable[[nn.Module], object]) -> Any:
    """Gives the weight of a layer with a rule another form, and has the layer look at it."""

    def provoke(folder: Path) -> object:
        (_, layer), *_ = feedback_layers(view())
        change(layer)
        return layer.check_weight()

    return provoke


def complex_weight(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.complex64))


def proved(model: nn.Module) -> Any:
    return lambda f: proof.prove(view(model=model), X)


def proved_of_what_cannot_be_copied(folder: Path) -> object:
    model = view()
    model.held = Lock()  # type: ignore[assignment]
    return proof.prove(model, X)


def scripted(folder: Path) -> object:
    return torch.jit.script(view())


def no_state(rule: str) -> Any:
    return lambda f: get_rule(rule).initial_state(torch.zeros(2, 2), None)


def zeros(value: float = 0.0) -> nn.Linear:
    """Returns a layer all of whose weights are this number."""
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, value)
    return layer


class Twice(nn.Linear):
    """A subclass of Linear, which uses its weight in another way."""


FEEDBACK: dict[str, Promised] = {
    "feedback.apply.get_rule": (
        UserError,
        [
            (lambda f: get_rule("usff"), "did you mean 'usf'"),
            (lambda f: get_rule("bp_matched_usff"), "unknown rule 'usff'; did you mean 'usf'"),
        ],
    ),
    "feedback.apply.apply_rule": (
        UserError,
        [
            (lambda f: view("usff"), "did you mean 'usf'"),
            (lambda f: apply_rule("no model", "bp"), "is put on a torch.nn.Module"),  # type: ignore[arg-type]
            (lambda f: apply_rule(network(), 3), "the id of a rule or a Rule, not int"),  # type: ignore[arg-type]
            (lambda f: view(model=nn.Sequential(Twice(4, 3))), "use Linear and Conv2d themselves"),
            (lambda f: view(model=nn.Sequential(nn.Tanh())), "no Linear or Conv2d"),
            (lambda f: view(model=holding(Lock())), "keep files, locks and generators out"),
            (lambda f: view(state={"0.x": torch.zeros(4, 4)}), "which this rule needs"),
            (lambda f: view(state=feedback_state(view()) | {"9.x": X}), "that this model has not, such as '9.x'"),
            (lambda f: view(state=[X]), "must be what feedback_state returned"),
            (lambda f: apply_rule(network(), "fa"), "pass generator="),
            (lambda f: backward(view(model=Idle())), "the model did not call any of the 1 layers"),
            (lambda f: backward(view(model=Tied())), "uses the layer's weight itself"),
            (lambda f: view("dfa", outputs=7)(X), "pass outputs=K"),
            (backward_from_within, "the loss must be a function of what the whole view returns"),
            (lambda f: view(scale="norms"), "did you mean 'norm'"),
            (lambda f: view(scale={}), "the scale has no norm for the layer"),
        ],
    ),
    "feedback.apply.feedback_state": (
        UserError,
        [(lambda f: feedback_state("no model"), "is put on a torch.nn.Module, not on str")],  # type: ignore[arg-type]
    ),
    "feedback.draws.fill_uniform": (
        RuntimeError,
        [(lambda f: draws.fill_uniform(torch.zeros(4, 4)[:, :3], 1.0, 7), "view size is not compatible")],
    ),
    "feedback.error.check_first_order": (UserError, [(lambda f: check_first_order(), "leave create_graph out")]),
    "feedback.error.first_order": (UserError, [(twice_differentiated, "leave create_graph out")]),
    "feedback.error.refuse_tangents": (
        UserError,
        [(lambda f: refuse_tangents(None, X), "use torch.autograd.grad, or apply the rule 'bp'")],
    ),
    "feedback.error.check_no_transform": (UserError, [(in_a_transform, "under no transform of torch.func")]),
    "feedback.error.check_not_captured": (
        UserError,
        [(captured, "capture the plain model"), (lambda f: check_not_captured("a proxy"), "capture the plain model")],
    ),
    "feedback.error.refuse_script": (UserError, [(lambda f: refuse_script(), "capture the plain model")]),
    "feedback.error.PassError.for_images": (
        UserError,
        [
            (lambda f: pass_error(None), "the loss must be a function of what the whole view returns"),
            (lambda f: pass_error(torch.zeros(3, 2)), "sends the error of 3 images to a layer whose input has 2"),
        ],
    ),
    "feedback.layers.FeedbackLayer.__prepare_scriptable__": (UserError, [(scripted, "capture the plain model")]),
    "feedback.layers.FeedbackLayer.check_weight": (
        UserError,
        [
            (reformed(parametrizations.weight_norm), "no rule can be put on such a layer"),
            (reformed(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)), "follows from other tensors"),
            (reformed(complex_weight), "rules are for real numbers"),
        ],
    ),
    "feedback.proof.Proof": (
        UserError,
        [
            (lambda f: backward(view(model=Idle())), "the model did not call any of the 1 layers"),
            (lambda f: backward(view(model=Tied())), "uses the layer's weight itself"),
        ],
    ),
    "feedback.proof.prove": (
        UserError,
        [
            (proved(Idle()), "the model did not call any of the 1 layers"),
            (proved(Tied()), "no rule can be put on this model"),
            (proved_of_what_cannot_be_copied, "call the view once with gradients before it is compiled"),
        ],
    ),
    "feedback.replaceable.check_model": (
        UserError,
        [
            (
                lambda f: check_model(nn.Linear),  # type: ignore[arg-type]
                "is put on a torch.nn.Module, not on the class Linear; call it first",
            ),
            (lambda f: check_model(torch.jit.trace(network(), X)), "use the module that it was made from"),
        ],
    ),
    "feedback.replaceable.replaceable_layers": (
        UserError,
        [
            (lambda f: replaceable_layers(view()), "apply the rule to the plain model"),
            (lambda f: replaceable_layers(nn.MultiheadAttention(4, 2)), "use Linear and Conv2d themselves"),
            (
                lambda f: replaceable_layers(prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)),
                "computed from other",
            ),
            (lambda f: replaceable_layers(nn.Linear(4, 4, dtype=torch.complex64)), "whose weight is complex"),
            (lambda f: replaceable_layers(nn.Linear(4, 4, device="meta")), "has no values yet"),
        ],
    ),
    "feedback.rule.InitialState.__call__": (
        UserError,
        [(no_state(rule), "pass generator=") for rule in ("fa", "brsf", "frsf", "dfa", "kp")],
    ),
    "feedback.rule.Rule.first_state": (
        UserError,
        [(lambda f: get_rule("frsf").first_state(torch.zeros(2, 2), None, SIGMA), "pass generator=")],
    ),
    "feedback.scaling.check_scale": (
        UserError,
        [
            (lambda f: check_scale(get_rule("fa"), "large"), "unknown scale 'large'; choose from: sigma, norm"),
            (lambda f: check_scale(get_rule("fa"), {"0": "1"}), "gives the norm of V, a number"),
            (lambda f: check_scale(Rule(feedback_weight=lambda w, state: w), "norm"), "leave scale out"),
        ],
    ),
    "feedback.scaling.check_names": (UserError, [(lambda f: check_names({"a": 1.0}, ["b"]), "a norm for 'a'")]),
    "feedback.scaling.layer_scale": (
        UserError,
        [
            (lambda f: layer_scale("a", zeros(), get_rule("fa"), "norm"), "whose weights are all zero"),
            (lambda f: layer_scale("a", zeros(torch.inf), get_rule("fa"), "norm"), "whose weights are not finite"),
            (lambda f: layer_scale("a", zeros(), get_rule("fa"), {"b": 1.0}), "no norm for the layer 'a'"),
        ],
    ),
    "feedback.rule.xavier_uniform": (
        UserError,
        [(lambda f: xavier_uniform(torch.zeros(2, 2), None), "pass generator=torch.Generator().manual_seed(...)")],
    ),
}
