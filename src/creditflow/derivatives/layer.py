"""One module alone: its gradient against differences of its own forward pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from creditflow.core.errors import one_line
from creditflow.derivatives.exact import exact_gradients
from creditflow.derivatives.numeric import (
    PRECISIONS,
    Difference,
    Measured,
    Point,
    cosine,
    dot,
    measure,
    norm,
    random_direction,
    root_mean_square,
)
from creditflow.derivatives.report import LayerReport
from creditflow.derivatives.subject import State, Subject, custom_functions, generic_point, seed_everything

#: Random directions for the inputs, and for the parameters.
_DIRECTIONS, _PARAMETER_DIRECTIONS = 4, 2
#: Larger parameters are left out: their random directions would take longer than all else.
_MOST_PARAMETERS = 2**20
#: A backward pass is linear in the gradient that arrives: this factor must come out again.
_FACTOR = 1000.0
#: Up to this number of outputs, each is looked at alone.
_MOST_OUTPUTS = 4


class Layer:
    """One module with the inputs of one call: a function of those inputs that are tensors of numbers.

    Args:
        subject: the model that it is part of.
        module: the module.
        inputs: its arguments and named arguments.
        state: what it was like before the call, if calls leave something behind; or None.
        generator: of the cotangents and directions.
    """

    def __init__(
        self, subject: Subject, module: nn.Module, inputs: Any, state: State | None, generator: torch.Generator
    ) -> None:
        self.subject, self.module, self.state, self.generator = subject, module, state, generator
        self.values, self.form = tree_flatten(inputs)
        self.places = [number for number, value in enumerate(self.values) if _is_point(value)]
        self.point = [generic_point(self.values[place], generator) for place in self.places]
        self.cotangents: list[Tensor] = []
        self.functions: tuple[str, ...] = ()
        self.rounding = 0.0
        #: The steps for the type with the fewest digits among the inputs.
        types = {x.dtype for x in self.point} or {subject.images.dtype}
        self.precision = PRECISIONS.get(max(types, key=lambda dtype: torch.finfo(dtype).eps), PRECISIONS[torch.float16])

    def outputs(self, point: Point, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Returns the outputs of the module that are tensors of numbers."""
        values = [value.clone() if isinstance(value, Tensor) else value for value in self.values]
        for place, tensor in zip(self.places, point, strict=True):
            values[place] = tensor.clone()
        arguments, named = tree_unflatten(values, self.form)
        if self.state is not None:
            self.state.restore()
        seed_everything(self.subject.seed)
        if parameters is None:
            returned = self.module(*arguments, **named)
        else:
            returned = torch.func.functional_call(self.module, parameters, arguments, named)
        return [value for value in tree_flatten(returned)[0] if isinstance(value, Tensor) and value.is_floating_point()]

    def evaluate(self, point: Point, parameters: dict[str, Tensor] | None = None) -> list[Tensor]:
        """Returns the outputs without their graph."""
        with torch.set_grad_enabled(self.subject.graph):
            return [output.detach() for output in self.outputs(point, parameters)]

    def report(self, dishonest: bool, parameters: bool) -> LayerReport:
        """Checks the gradient of the inputs, and with `parameters` those of the parameters. The report has no name yet.

        With `dishonest`, a module is to blame if its backward pass does not work alone.
        """
        kind = type(self.module).__name__
        try:
            at_point = self.evaluate(self.point)
        except Exception as failure:  # whatever a foreign module raises
            return LayerReport("", kind, None, None, 0.0, f"it cannot be called alone: {one_line(failure)}")
        if not all(output.isfinite().all() for output in at_point):
            return LayerReport("", kind, None, None, 0.0, "its outputs are not finite")
        self.cotangents = random_direction(at_point, [1.0] * len(at_point), self.generator)
        self.rounding = torch.finfo(torch.float64).eps * norm(at_point)
        parts = self._parts()
        try:
            gradients = [self.gradient(part) for part in parts]
        except Exception as failure:
            why = f"its backward pass works only inside the model: {one_line(failure)}"
            return LayerReport("", kind, False if dishonest else None, None, 0.0, why)
        wrong = self._wrong_parameters() if parameters else ()
        honest, error, flat = self._judge(gradients, parts)
        flat = flat and self._varies(at_point)
        whole = [sum(tensors[1:], tensors[0]) for tensors in zip(*gradients, strict=True)]
        linear = flat or honest is False or self._is_linear(gradients[0], parts[0])
        exact = self._exact() if honest is False else None
        why = self._why(norm(whole) == 0, (honest, linear, flat), wrong)
        angle = cosine(whole, exact) if exact else None
        return LayerReport("", kind, honest if linear else False, angle, error, why, wrong, flat)

    def _varies(self, at_point: Point) -> bool:
        """Returns whether other inputs within the same range give other outputs."""
        elsewhere = self.evaluate([generic_point(x, self.generator, moved=1.0) for x in self.point])
        return any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(elsewhere, at_point, strict=True))

    def _parts(self) -> list[list[Tensor]]:
        """Returns a cotangent for each output alone, as a spike's surrogate hides beside a membrane potential's slope.

        If there are many outputs, it returns one for all of them.
        """
        if not 1 < len(self.cotangents) <= _MOST_OUTPUTS:
            return [self.cotangents]
        zeros = [torch.zeros_like(cotangent) for cotangent in self.cotangents]
        return [[*zeros[:n], cotangent, *zeros[n + 1 :]] for n, cotangent in enumerate(self.cotangents)]

    def gradient(self, cotangents: Point) -> list[Tensor]:
        """Returns the gradient of the inputs by the module's own backward pass."""
        point = [x.detach().clone().requires_grad_() for x in self.point]
        with torch.enable_grad():
            outputs = self.outputs(point)
            self.functions = self.functions or custom_functions(outputs)  # inside exact_gradients there are none
            value = _product(outputs, cotangents)
        return _gradients(value, point)

    def _judge(self, gradients: Sequence[Point], parts: Sequence[Point]) -> tuple[bool | None, float, bool]:
        """Returns whether gradients are honest, the largest error, and whether the derivative is zero."""
        if not self.point:
            return True, 0.0, False
        tolerance, scales = self.precision.tolerance, [root_mean_square(x) for x in self.point]
        measured = self._measured(gradients, parts, scales)
        if all(series.judge(0, tolerance).honest is None for series in measured):  # the inputs are too small to matter
            measured = self._measured(gradients, parts, [max(1.0, scale) for scale in scales])
        judgements = [series.judge(0, tolerance) for series in measured]
        known = [judgement.honest for judgement in judgements if judgement.honest is not None]
        error = max(judgement.error for judgement in judgements)
        return all(known) if known else None, error, all(series.flat() for series in measured)

    def _measured(self, gradients: Sequence[Point], parts: Sequence[Point], scales: list[float]) -> list[Measured]:
        measured = [
            Measured(difference_of(part), [gradient], scales, self.rounding)
            for gradient, part in zip(gradients, parts, strict=True)
        ]
        directions = [random_direction(self.point, scales, self.generator) for _ in range(_DIRECTIONS)]
        measure(self.evaluate, self.point, directions, measured, self.precision.steps)
        return measured

    def _is_linear(self, gradient: Point, cotangents: Point) -> bool:
        larger = self.gradient([_FACTOR * cotangent for cotangent in cotangents])
        difference = norm([a / _FACTOR - b for a, b in zip(larger, gradient, strict=True)])
        return not difference > self.precision.tolerance * norm(gradient)

    def _exact(self) -> list[Tensor] | None:
        """Returns the gradient of the inputs inside `exact_gradients`, if differences confirm it; else None."""
        try:
            with exact_gradients(self.module, missing="zero"):
                exact = self.gradient(self.cotangents)
            return exact if self._judge([exact], [self.cotangents])[0] else None
        except Exception:  # a function that cannot run under autograd, whatever it raises
            return None

    def _wrong_parameters(self) -> tuple[str, ...]:
        """Returns the names of parameters whose gradients are not derivatives."""
        parameters = {
            name: parameter
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and parameter.numel() <= _MOST_PARAMETERS and _is_point(parameter)
        }
        if self.subject.images.dtype != torch.float64 or not parameters:
            return ()
        try:
            with torch.enable_grad():
                outputs = self.outputs(self.point, dict(parameters))
                value = _product(outputs, self.cotangents)
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            known = {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}
            if self._parameters_honest({name: parameters[name] for name in known}, known):
                return ()
            return tuple(name for name in known if not self._parameters_honest({name: parameters[name]}, known))
        except Exception:  # the parameters are not used as torch.func.functional_call needs it
            return ()

    def _parameters_honest(self, parameters: dict[str, Tensor], gradients: dict[str, Tensor]) -> bool:
        point = [tensor.detach() for tensor in parameters.values()]
        if not point:
            return True
        scales = [root_mean_square(x) for x in point]
        measured = Measured(
            difference_of(self.cotangents), [[gradients[name] for name in parameters]], scales, self.rounding
        )
        directions = [random_direction(point, scales, self.generator) for _ in range(_PARAMETER_DIRECTIONS)]

        def function(moved: Point) -> list[Tensor]:
            return self.evaluate(self.point, dict(zip(parameters, moved, strict=True)))

        measure(function, point, directions, [measured], self.precision.steps, in_full=0)
        return measured.judge(0, self.precision.tolerance).honest is not False

    def _why(self, zero: bool, judged: tuple[bool | None, bool, bool], wrong: tuple[str, ...]) -> str:
        honest, linear, flat = judged
        if honest is None:
            return "rounding hides whether its gradient is the derivative"
        if honest and linear and flat:
            return "its outputs are constant but for jumps, so it passes no gradient"
        if honest and linear and not wrong:
            return ""
        if honest and not linear:
            return "its gradient is not linear in the gradient that arrives (it is clipped or normalised)"
        if honest:
            return f"the gradient of {', '.join(wrong)} is not the derivative; that of its inputs is"
        if flat:
            cause = "its outputs are constant but for jumps, and its gradient is not zero"
        elif zero:
            cause = "it passes no gradient, although its outputs depend on its inputs"
        else:
            cause = "its gradient is not the derivative"
        hooked = bool(self.module._backward_hooks or self.module._backward_pre_hooks)
        by = [f"custom function {', '.join(self.functions)}"] * bool(self.functions) + ["a backward hook"] * hooked
        return f"{cause} ({' and '.join(by)})" if by else cause


def _product(outputs: Point, cotangents: Point) -> Tensor:
    pairs = zip(outputs, cotangents, strict=True)
    return sum(((cotangent * output).sum() for output, cotangent in pairs), torch.zeros(()))


def difference_of(cotangents: Point) -> Difference:
    """Returns what maps two outputs to the product of their difference with cotangents."""

    def difference(first: Point, second: Point) -> float:
        return dot(cotangents, [a.double() - b.double() for a, b in zip(first, second, strict=True)])

    return difference


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, Tensor) and value.is_floating_point() and value.numel() > 0 and bool(value.isfinite().all())
    )


def _gradients(value: Tensor, point: Sequence[Tensor]) -> list[Tensor]:
    """Returns the gradients of a number; zeros where there is none."""
    if not point or not value.requires_grad:
        return [torch.zeros_like(x) for x in point]
    gradients = torch.autograd.grad(value, point, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g.detach() for x, g in zip(point, gradients, strict=True)]
