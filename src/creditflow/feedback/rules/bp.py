"""BP: backpropagation, V = W. The layers stay as they are."""

from torch import Tensor

from creditflow.feedback.rule import Rule, State


def feedback_weight(weight: Tensor, state: State) -> Tensor:
    """Returns a copy of W."""
    return weight.clone()


RULE = Rule(
    feedback_weight=feedback_weight,
    exact=True,
    title="BP",
    order=10,
    color="#000000",
    marker="o",
    transported_bits=32,
)
