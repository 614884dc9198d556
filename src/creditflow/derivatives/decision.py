"""The verdict on a model's own gradient, in a word and a sentence."""

from creditflow.derivatives.evidence import Evidence, Gradients
from creditflow.derivatives.numeric import cosine, norm
from creditflow.derivatives.report import LayerReport, Verdict

#: If rounding hides what differences say, the own gradient counts as honest from this cosine with the exact one.
_SAME_GRADIENT = 0.99


def decide(evidence: Evidence) -> tuple[Verdict, str]:
    """Returns the verdict and its reason."""
    outputs, loss = evidence.projection, evidence.loss
    if outputs.flat and evidence.constant and norm([outputs.backward]) == 0:
        return (
            "honest",
            "the outputs are the same for all images, so the derivative is zero, and so is the own gradient",
        )
    if outputs.flat:
        return "no useful gradient", _why_flat(outputs)
    if not is_honest(outputs):
        return _dishonest(evidence, outputs, "the own gradient is not the derivative of what the model computes")
    if loss is not None and not loss.flat and not is_honest(loss) and not _is_exact(loss):
        return _dishonest(evidence, loss, "the own gradient of the loss is not its derivative, that of the outputs is")
    return "honest", "the own gradient is the derivative of what the model computes"


def decide_by_layers(layers: tuple[LayerReport, ...]) -> tuple[Verdict, str]:
    """Returns the verdict and its reason where rounding or many small jumps hide the differences of the whole model."""
    hidden = "rounding or many small jumps hide the differences of the whole model"
    blamed = [layer for layer in layers if layer.honest is False]
    if not blamed:
        return "honest", f"{hidden}, but the own gradient is the exact one, and no module alone is to blame"
    what = f"{hidden}, but the gradients of some modules alone are not derivatives"
    if all(layer.cosine is not None for layer in blamed):
        return "surrogate", f"{what}; exact_gradients gives them"
    return "no useful gradient", f"{what}, and exact_gradients cannot give them"


def is_honest(gradients: Gradients) -> bool:
    """Returns whether a gradient is the derivative, by differences or, where rounding hides these, by the exact one."""
    if gradients.backward_judged.honest is not None:
        return gradients.backward_judged.honest
    angle = cosine([gradients.backward], [gradients.exact])
    return norm([gradients.backward]) == norm([gradients.exact]) == 0 or (angle is not None and angle > _SAME_GRADIENT)


def _is_exact(loss: Gradients) -> bool:
    """Returns whether the own gradient of a loss is the exact one, by direction and length.

    Where that of the outputs is honest, this is enough: the chain rule gives the rest. Differences of a loss that
    hardly depends on the images say less, as rounding and curvature may be taken for a lie.
    """
    angle, lengths = cosine([loss.backward], [loss.exact]), (norm([loss.backward]), norm([loss.exact]))
    return angle is not None and angle > 1 - 1e-6 and abs(lengths[0] - lengths[1]) <= 1e-3 * lengths[1]


def _dishonest(evidence: Evidence, gradients: Gradients, what: str) -> tuple[Verdict, str]:
    if gradients.exact_judged.honest:
        return "surrogate", f"{what}; exact_gradients gives it"
    cause = "exact_gradients cannot give it"
    if evidence.failure:
        cause += f": {evidence.failure.rstrip('.')}"
    elif evidence.constants:
        cause += f": the forward pass of {', '.join(evidence.constants)} carries no gradient"
    return "no useful gradient", f"{what}, and {cause}"


def _why_flat(gradients: Gradients) -> str:
    if not gradients.jumps:
        return "the outputs do not change when images change by a hundredth of their range, so the derivative is zero"
    if norm([gradients.backward]) == 0:
        return "the outputs are constant but for jumps, so the derivative is zero almost everywhere"
    return (
        "the outputs are constant but for jumps, so the derivative is zero almost everywhere;"
        " the own gradient is that of something else"
    )
