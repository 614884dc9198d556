"""`check_gradient`: whether a model's backward pass is the derivative of its forward pass, and which layers lie."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from creditflow.compute.randomness import derive_seed
from creditflow.core.errors import UserError
from creditflow.derivatives import arguments
from creditflow.derivatives.decision import decide, decide_by_layers, is_honest
from creditflow.derivatives.evidence import Evidence, LossOf, Number, Projection, backward_gradient, gather
from creditflow.derivatives.layers import ROOT, check_layers
from creditflow.derivatives.numeric import PRECISIONS, cosine, norm
from creditflow.derivatives.report import GradientReport, LayerReport
from creditflow.derivatives.subject import (
    State,
    Subject,
    custom_functions,
    generic_point,
    kept_randomness,
    uncompiled,
)

#: The first images are enough, as a lie does not depend on the image.
IMAGES = 8
#: The copy in float64 stands for the model if their own gradients have at least this cosine, by the model's type.
_SAME_GRADIENT = {torch.float64: 0.99, torch.float32: 0.9, torch.float16: 0.5, torch.bfloat16: 0.5}

Loss = Callable[[Tensor, Tensor], Tensor]


@torch.inference_mode(False)
def check_gradient(
    model: nn.Module,
    images: Tensor,
    labels: Tensor | None = None,
    *,
    loss: Loss | None = None,
    layers: bool = True,
    seed: int = 0,
) -> GradientReport:
    """Tells whether the gradient that a model's backward pass gives is the derivative of its forward pass.

    Every gradient attack on a model relies on that. Feedback alignment, surrogate gradients and straight-through
    estimators break it, and then an attack measures the wrong thing.

    The own gradient of a random projection of the outputs, and with labels that of the loss, is compared with
    differences of the forward pass along random directions, along itself and along its signs (the attack's step), with
    steps from 1e-2 to 1e-8 of the images' range; with forward-mode differentiation; and with `exact_gradients`. The
    comparison takes a copy of the model in float64 where that works, else the model with larger steps and tolerances.
    It takes the first 8 images, moved a hundredth of the way to random images within the same range, since a
    piecewise linear model has no derivative where many pixels are equal. Then each module is compared alone.

    Args:
        model: any module that returns logits (N, K), in the mode in which it is attacked. It is left as it was: modes,
            flags, gradients, buffers, hooks, and the states of the random generators.
        images: (N, ...) floating-point numbers as the model takes them, on its device.
        labels: (N,) integers; with `loss`, whatever the loss takes. None leaves the loss out.
        loss: maps outputs and labels to a number; None means the summed cross-entropy.
        layers: whether to check each module, too. It takes about as long as the rest.
        seed: of the directions, the projection, and the random numbers that the model draws.

    Returns:
        the report, with the verdict `honest`; `surrogate` (the own gradient is not the derivative, and
        `exact_gradients` gives it); or `no useful gradient` (the derivative is zero almost everywhere, or missing).

    Raises:
        UserError: the model is no module, raises, is in training mode with dropout or batch normalisation, returns no
            finite logits for two or more classes, or gives other outputs at each call although all global seeds are
            fixed; the images or labels have the wrong type, shape, device or range, or the images contain NaN.
    """
    model = arguments.check_model(model)
    images = arguments.check_images(images, model)
    before = State(model)
    try:
        with kept_randomness(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: the gradients are taken in unusual ways
            return _Check(model, images, labels, loss, before, seed).report(layers)
    finally:
        before.restore()


class _Check:
    """One call of `check_gradient`: the model, the copy that is evaluated, and the numbers that are differentiated."""

    def __init__(
        self, model: nn.Module, images: Tensor, labels: object, loss: object, before: State, seed: int
    ) -> None:
        self.seed = seed
        self.generator = torch.Generator().manual_seed(derive_seed("check_gradient", "directions", seed))
        few = images[:IMAGES].clone()
        self.span = float(few.max() - few.min()) or 1.0
        native = Subject(model, generic_point(few, self.generator), seed)
        outputs = _first_outputs(native, images)
        self.native, self.functions = _with_graph(_repeatable(native, before, outputs), outputs)
        reference = self.native.evaluate(native.images)
        self.random = not _same(reference, replace(self.native, seed=seed + 1).evaluate(native.images))
        checked = arguments.check_labels(labels, images, outputs, loss)
        self.numbers: list[Number] = [Projection(outputs, self.generator)]
        if checked is not None:
            self.numbers.append(_checked_loss(loss, checked[: len(outputs)].clone(), outputs))
        self.backward = _backward_gradients(self.native, self.numbers)
        self.subject = self._representative()

    def _representative(self) -> Subject:
        """Returns the copy in float64 if its own gradient is that of the model, else the model itself."""
        doubled = self.native.in_float64()
        if doubled is None:
            return self.native
        gradient = _backward_gradients(doubled, self.numbers[:1])
        least = _SAME_GRADIENT.get(self.native.images.dtype, _SAME_GRADIENT[torch.bfloat16])
        angle = cosine(gradient, self.backward[:1])
        both_zero = norm(gradient) == norm(self.backward[:1]) == 0
        return doubled if both_zero or (angle is not None and angle >= least) else self.native

    def report(self, with_layers: bool) -> GradientReport:
        """Measures, decides, and asks the layers."""
        precision = PRECISIONS.get(self.subject.images.dtype, PRECISIONS[torch.bfloat16])
        evidence = gather(self.subject, self.numbers, self.span, precision, self.generator)
        verdict, reason = decide(evidence)
        hidden = verdict == "honest" and evidence.projection.backward_judged.honest is None
        layers: tuple[LayerReport, ...] = ()
        if with_layers or hidden:
            layers = check_layers(self.subject, verdict != "honest" or hidden, derive_seed("layers", self.seed))
            if not is_honest(evidence.projection) and all(layer.honest is not False for layer in layers):
                layers += (self._root(evidence),)
        if hidden:
            verdict, reason = decide_by_layers(layers)
        report = GradientReport(
            verdict=verdict,
            reason=reason,
            cosine=self._cosine(evidence, trusted=verdict == "honest"),
            numeric_cosine=evidence.numeric_cosine,
            agreement=evidence.projection.backward_judged.agreement,
            disagreement=evidence.disagreement,
            forward_mode=evidence.forward_mode,
            precision=str(self.subject.images.dtype).removeprefix("torch."),
            images=len(self.native.images),
            random_outputs=self.random,
            functions=self.functions,
            layers=layers if with_layers else (),
            notes=self._notes(layers),
        )
        return replace(report, reason=reason + _culprits(report) + ".")

    def _cosine(self, evidence: Evidence, trusted: bool) -> float | None:
        """Returns the cosine of the own gradient with the exact one: of the loss unless that is saturated.

        Unless the exact one is `trusted`, differences must have confirmed it.
        """
        for gradients, backward in reversed(
            list(zip((evidence.projection, evidence.loss), self.backward, strict=False))
        ):
            known = None if gradients is None else gradients.exact_judged.honest
            if gradients is not None and (known or (trusted and known is None)):
                angle = cosine([backward], [gradients.exact])
                if angle is not None:
                    return angle
        return None

    def _root(self, evidence: Evidence) -> LayerReport:
        """Returns the report on the model as a whole, where no module alone is to blame."""
        why = "its gradient is not the derivative, although no module alone is to blame"
        kind, error = type(uncompiled(self.native.model)).__name__, evidence.projection.backward_judged.error
        return LayerReport(ROOT, kind, False, self._cosine(evidence, trusted=False), error, why)

    def _notes(self, layers: tuple[LayerReport, ...]) -> tuple[str, ...]:
        notes = []
        if self.random:
            notes.append("The outputs are random; every call had the same seed, so this is the gradient of one draw.")
        if self.native.state is not None:
            notes.append("A call leaves something behind for the next; every call began with the state that was given.")
        if self.native.graph:
            notes.append("The model computes something else inside torch.no_grad(); it was compared without that.")
        if self.subject is self.native and self.native.images.dtype != torch.float64:
            name = str(self.native.images.dtype).removeprefix("torch.")
            notes.append(f"A copy in float64 does not work as the model does, so steps are those of {name}.")
        if wrong := [layer.name for layer in layers if layer.parameters]:
            notes.append(
                f"The gradients of parameters of {_listed(wrong)} are not derivatives; attacks do not use these."
            )
        return tuple(notes)


def _culprits(report: GradientReport) -> str:
    """Returns how the sentence of the verdict goes on."""
    if not report.culprits:
        return ""
    names = _listed(report.culprits)
    return f", although that of {names} alone is not" if report.verdict == "honest" else f"; to blame: {names}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="sum")


def _checked_loss(loss: object, labels: Tensor, outputs: Tensor) -> Number:
    number = LossOf(loss if callable(loss) else _cross_entropy, labels, outputs)
    value = arguments.call(lambda: number.value(outputs), "the loss cannot take the outputs and labels")
    if not (isinstance(value, Tensor) and value.isfinite()):
        raise UserError("the loss of these images is NaN or infinite: check the labels and the loss")
    return number


def _first_outputs(native: Subject, images: Tensor) -> Tensor:
    what = f"the model cannot take images of shape {list(images.shape)} and type {images.dtype}"
    return arguments.check_outputs(arguments.call(lambda: native.evaluate(native.images), what), native.images)


def _backward_gradients(subject: Subject, numbers: list[Number]) -> list[Tensor]:
    """Returns the own gradients of the numbers; zeros where the backward pass fails or gives none."""
    return [backward_gradient(subject, number)[0] for number in numbers]


def _same(first: Tensor, second: Tensor) -> bool:
    """Returns whether two outputs are equal but for rounding."""
    difference = float((first.double() - second.double()).norm())
    return difference <= math.sqrt(torch.finfo(first.dtype).eps) * float(first.double().norm())


def _repeatable(native: Subject, before: State, outputs: Tensor) -> Subject:
    """Returns a subject that gives the same outputs again. Raises UserError if that is not possible."""
    for subject in (native, replace(native, state=before)):
        if _same(outputs, subject.evaluate(subject.images)):
            return subject
    raise UserError(
        "the model gives other outputs at each call although all global seeds are fixed:"
        " let it draw its random numbers from the global generator of torch"
    )


def _with_graph(native: Subject, outputs: Tensor) -> tuple[Subject, tuple[str, ...]]:
    """Returns the subject, which records graphs if that changes the outputs, and the custom functions in the graph."""
    tracked = native.images.detach().clone().requires_grad_()
    with torch.enable_grad():
        recorded = arguments.call(lambda: native(tracked), "the model cannot be called with gradients switched on")
    same = isinstance(recorded, Tensor) and _same(outputs, recorded.detach())
    return native if same else replace(native, graph=True), custom_functions([recorded])
