"""What `check_gradient` returns: a verdict in one word, the reason in a sentence, and the layers that are to blame."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["honest", "surrogate", "no useful gradient"]

#: Rows of layers that are printed.
_ROWS = 20


@dataclass(frozen=True)
class LayerReport:
    """What the backward pass of one module is worth.

    Attributes:
        name: the qualified name, as `model.named_modules()` has it; `(the model itself)` for the model as a whole.
        kind: name of the module's class.
        honest: whether the gradient of its inputs is the derivative of what it computes; None if that is unknown.
        cosine: of its gradient with the derivative, estimated from differences; None where one of them is zero.
        error: relative difference from the differences, the median over directions.
        why: what is wrong; empty for an honest layer that passes a gradient.
        parameters: names of its parameters whose gradients are not the derivatives. Attacks do not use these gradients.
        flat: whether the derivative is zero although other inputs give other outputs, as in a step or a quantiser.
    """

    name: str
    kind: str
    honest: bool | None
    cosine: float | None
    error: float
    why: str
    parameters: tuple[str, ...] = ()
    flat: bool = False


@dataclass(frozen=True)
class GradientReport:
    """Whether the backward pass of a model is the derivative of its forward pass.

    Attributes:
        verdict: `honest`; `surrogate`: the model's own gradient is not the derivative, and `exact_gradients` gives the
            derivative; `no useful gradient`: the derivative is zero almost everywhere, or cannot be had.
        reason: the reason in a sentence.
        cosine: of the own gradient with the exact one, of the loss where that is not saturated; None if one of them is
            zero or differences do not confirm the exact one.
        numeric_cosine: of the own gradient with the derivative, estimated from differences along random directions.
        agreement: share of directions along which the own gradient is the derivative; None if rounding hides it.
        disagreement: (step, share of directions along which the central difference is something else), in units of the
            range of the images.
        forward_mode: relative difference of the own gradient from forward-mode differentiation along one direction;
            None where the model has none.
        precision: the type of numbers of the comparison, such as `float64`.
        images: number of images that were used.
        random_outputs: whether two calls with other seeds give other outputs. The seed was fixed then.
        functions: names of the custom autograd functions in the graph of the outputs.
        layers: the leaf modules, and containers that are to blame themselves; empty with `layers=False`.
        notes: further sentences.
    """

    verdict: Verdict
    reason: str
    cosine: float | None
    numeric_cosine: float | None
    agreement: float | None
    disagreement: tuple[tuple[float, float], ...]
    forward_mode: float | None
    precision: str
    images: int
    random_outputs: bool
    functions: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...] = ()

    @property
    def culprits(self) -> list[str]:
        """Names of the modules that are to blame.

        These are the modules whose gradient of their inputs is not the derivative of what they compute. If there is no
        useful gradient, these are also the steps and quantisers, whose derivative is zero.
        """
        return [layer.name for layer in self.layers if self._is_to_blame(layer)]

    def _is_to_blame(self, layer: LayerReport) -> bool:
        return layer.honest is False or (layer.flat and self.verdict == "no useful gradient")

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain dicts and lists, ready for JSON."""
        content = asdict(self) | {"culprits": self.culprits}
        content["layers"] = [asdict(layer) | {"parameters": list(layer.parameters)} for layer in self.layers]
        for name in ("functions", "notes"):
            content[name] = list(content[name])
        content["disagreement"] = [list(pair) for pair in self.disagreement]
        return content

    def __str__(self) -> str:
        """Returns the report for people: the verdict, the numbers, and the layers that are to blame."""
        lines = [f"{self.verdict}: {self.reason}", *self.notes, *self._numbers()]
        blamed = [layer for layer in self.layers if self._is_to_blame(layer) or layer.parameters]
        if blamed:
            width = max(len(layer.name) for layer in blamed[:_ROWS])
            lines += [f"  {layer.name:{width}}  {layer.kind}: {layer.why}" for layer in blamed[:_ROWS]]
        if len(blamed) > _ROWS:
            lines.append(f"  and {len(blamed) - _ROWS} more")
        return "\n".join(lines)

    def _numbers(self) -> list[str]:
        lines = []
        if self.cosine is not None:
            lines.append(f"cosine of the own gradient with the exact one: {self.cosine:.4f}")
        if self.numeric_cosine is not None:
            lines.append(f"cosine with an estimate from differences: about {self.numeric_cosine:.1f}")
        if self.forward_mode is not None:
            lines.append(f"relative difference from forward mode: {self.forward_mode:.1e}")
        if self.disagreement:
            shares = ", ".join(f"{share:.0%} at {step:g}" for step, share in self.disagreement)
            lines.append(f"directions with another central difference, by step (kinks fade, lies do not): {shares}")
        if self.layers:
            checked = sum(layer.honest is not None for layer in self.layers)
            lines.append(f"modules checked alone, in {self.precision}: {checked}; to blame: {len(self.culprits)}")
        return lines
