"""BP: backpropagation, V = W. The layers stay as they are."""

from creditflow.feedback.rule import Rule

RULE = Rule(
    feedback_weight=lambda weight, state: weight.clone(),
    exact=True,
    title="BP",
    order=10,
    color="#000000",
    marker="o",
    transported_bits=32,
)
