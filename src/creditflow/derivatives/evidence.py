"""What is known of a model's own gradient and its exact one, from differences of the model's outputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from creditflow.core.errors import one_line
from creditflow.derivatives.exact import exact_gradients
from creditflow.derivatives.numeric import (
    Judgement,
    Measured,
    Point,
    Precision,
    cosine,
    dot,
    measure,
    norm,
    random_direction,
)
from creditflow.derivatives.subject import Subject, forward_slope, generic_point

#: Random directions, beside those of the gradients.
_DIRECTIONS = 8
#: Directions that are measured with every step.
_IN_FULL = 2
#: Gradients whose cosine is larger point the same way; no direction is spent on telling them apart.
_SAME_WAY = 0.999
_EPSILON = torch.finfo(torch.float64).eps


class Number:
    """A number that follows from outputs, and is differentiated."""

    def __init__(self, value: Callable[[Tensor], Tensor], rounding: float) -> None:
        self.value = value
        #: How much of the number float64 loses at the least.
        self.rounding = rounding

    def difference(self, first: Point, second: Point) -> float:
        """Returns the difference of the number between two outputs."""
        return float(self.value(first[0].double())) - float(self.value(second[0].double()))


class Projection(Number):
    """A projection of the outputs on random weights. Unlike a loss it cannot be saturated.

    The weights of an image sum to zero, so a number that is added to all of its logits does not count. Predictions do
    not depend on such a number, and it could hide how the logits differ.
    """

    def __init__(self, outputs: Tensor, generator: torch.Generator) -> None:
        weights = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
        weights = (weights - weights.mean(-1, keepdim=True)).to(outputs.device)
        self.weights = weights
        size = float((weights * outputs.double()).norm())
        super().__init__(lambda logits: (weights * logits.double()).sum(), _EPSILON * size)

    def difference(self, first: Point, second: Point) -> float:
        """Returns the projection of the difference of two outputs, which rounds less than that of two projections."""
        return dot([self.weights], [first[0].double() - second[0].double()])


class LossOf(Number):
    """A loss of the outputs and labels, summed if it is no single number."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, outputs: Tensor) -> None:
        size = float(outputs.double().abs().max()) * len(outputs)
        super().__init__(lambda logits: loss(logits, labels).sum(), _EPSILON * size)


@dataclass(frozen=True)
class Gradients:
    """The gradients of one number, and what differences say of them.

    Attributes:
        backward, exact: the own gradient and the exact one, of the shape of the images; zeros where there is none.
        backward_judged, exact_judged: what the differences say.
        flat: whether the derivative is zero.
        jumps: whether the number changes for large steps, although the derivative is zero.
    """

    backward: Tensor
    exact: Tensor
    backward_judged: Judgement
    exact_judged: Judgement
    flat: bool
    jumps: bool


@dataclass(frozen=True)
class Evidence:
    """Everything that the verdict follows from; the attributes of GradientReport have the same names.

    Attributes:
        projection: of a random projection of the outputs.
        loss: of the loss; None without labels.
        constants: names of functions whose forward pass carries no gradient.
        failure: why the own backward pass, or else the exact one, gives no gradient; or an empty text.
        constant: whether random images within the same range have the same outputs.
    """

    projection: Gradients
    loss: Gradients | None
    disagreement: tuple[tuple[float, float], ...]
    numeric_cosine: float | None
    forward_mode: float | None
    constants: tuple[str, ...]
    failure: str
    constant: bool


def gather(
    subject: Subject, numbers: list[Number], span: float, precision: Precision, generator: torch.Generator
) -> Evidence:
    """Measures the model along random directions and those of its gradients.

    Args:
        subject: the model and its images.
        numbers: a projection of the outputs, and a loss or nothing.
        span: the range of the images: the unit of the steps.
        precision: steps and tolerance.
        generator: of the random directions.
    """
    backwards, failure = zip(*(backward_gradient(subject, number) for number in numbers), strict=True)
    exact, why, constants = _exact(subject, numbers)
    measured = [
        Measured(number.difference, [[first], [second]], [span], number.rounding)
        for number, first, second in zip(numbers, backwards, exact, strict=True)
    ]
    randoms = [random_direction([subject.images], [span], generator)[0] for _ in range(_DIRECTIONS)]
    guided = _directions(backwards, exact, span)
    directions = [guided[0], randoms[0], *guided[1:], *randoms[1:]] if guided else randoms

    def function(point: Point) -> list[Tensor]:
        return [subject.evaluate(point[0])]

    measure(function, [subject.images], [[d] for d in directions], measured, precision.steps, _IN_FULL)
    judged = [
        _judged(series, gradients, precision.tolerance)
        for series, *gradients in zip(measured, backwards, exact, strict=True)
    ]
    return Evidence(
        projection=judged[0],
        loss=judged[1] if len(judged) > 1 else None,
        disagreement=measured[0].disagreement(0, precision.tolerance),
        numeric_cosine=_numeric_cosine(measured[0], directions, randoms, backwards[0]),
        forward_mode=_forward_mode(subject, numbers[0], backwards[0], randoms[0]),
        constants=constants,
        failure=next((text for text in (*failure, why) if text), ""),
        constant=_is_constant(subject, generator),
    )


def _is_constant(subject: Subject, generator: torch.Generator) -> bool:
    elsewhere = subject.evaluate(generic_point(subject.images, generator, moved=1.0))
    return torch.equal(elsewhere, subject.evaluate(subject.images))


def _judged(measured: Measured, gradients: list[Tensor], tolerance: float) -> Gradients:
    backward, exact = gradients
    judgements = measured.judge(0, tolerance), measured.judge(1, tolerance)
    return Gradients(backward, exact, *judgements, measured.flat(), measured.jumps())


def backward_gradient(subject: Subject, number: Number) -> tuple[Tensor, str]:
    """Returns the own gradient of a number; zeros and the reason if the backward pass fails or gives none."""
    try:
        gradient = subject.gradient(number.value)
    except Exception as error:  # whatever a foreign backward pass raises
        return torch.zeros_like(subject.images), f"the model's backward pass fails: {one_line(error)}"
    if gradient is None:
        return torch.zeros_like(subject.images), "the outputs have no gradient with respect to the images"
    return gradient, ""


def _exact(subject: Subject, numbers: list[Number]) -> tuple[list[Tensor], str, tuple[str, ...]]:
    """Returns the exact gradients of the numbers, the reason if there are none, and the functions without one."""
    try:
        with exact_gradients(subject.model, missing="zero") as undone:
            gradients = [subject.gradient(number.value) for number in numbers]
    except Exception as error:
        return [torch.zeros_like(subject.images) for _ in numbers], one_line(error), ()
    known = [torch.zeros_like(subject.images) if gradient is None else gradient for gradient in gradients]
    return known, "", tuple(sorted(undone.constants))


def _directions(backward: tuple[Tensor, ...], exact: list[Tensor], span: float) -> list[Tensor]:
    """Returns the signs of the last own gradient (an attack's step), the first own gradient, and the exact one."""
    guided = [backward[-1].sign(), backward[0]]
    if (cosine([backward[0]], [exact[0]]) or 0.0) < _SAME_WAY:
        guided.append(exact[0])
    lengths = [norm([direction]) for direction in guided]
    size = backward[0].numel() ** 0.5 * span
    return [
        (direction.double() * (size / length)).to(backward[0])
        for direction, length in zip(guided, lengths, strict=True)
        if 0 < length < float("inf")
    ]


def _numeric_cosine(
    measured: Measured, directions: list[Tensor], randoms: list[Tensor], backward: Tensor
) -> float | None:
    """Estimates the cosine of the own gradient with the derivative d.

    Along the own gradient, the slope per unit of length is |d| times the cosine. Along Gaussian directions u, the mean
    of (d . u)^2 is |d|^2, which 8 directions tell to a quarter; and no slope per unit of length is larger than |d|.
    """
    decisive = [(direction, measured.decisive(number)) for number, direction in enumerate(directions)]
    slopes = [(direction, slope.central / norm([direction])) for direction, slope in decisive if slope is not None]
    random = [slope for direction, slope in slopes if any(direction is other for other in randoms)]
    parallel = [slope for direction, slope in slopes if (cosine([direction], [backward]) or 0.0) > _SAME_WAY]
    if not random or not parallel:
        return None
    estimate = (backward.numel() * sum(slope**2 for slope in random) / len(random)) ** 0.5
    length = max(estimate, *(abs(slope) for _, slope in slopes))
    return parallel[0] / length if length > 0 else None


def _forward_mode(subject: Subject, number: Number, backward: Tensor, direction: Tensor) -> float | None:
    slope = forward_slope(subject, number.value, direction)
    if slope is None:
        return None
    usual = norm([backward]) * norm([direction]) / backward.numel() ** 0.5
    size = max(abs(slope), usual)
    return abs(slope - dot([backward], [direction])) / size if size > 0 else 0.0
