"""frSF: fixed random-magnitude sign-concordant feedback (Liao et al., 2016), V = M * sign(W), M drawn once."""

from creditflow.feedback.rule import Rule, random_magnitude, sign_concordant

RULE = Rule(
    feedback_weight=sign_concordant,
    initial_state=random_magnitude,
    scaled=True,
    elementwise=True,
    title="frSF",
    order=30,
    color="#D55E00",
    marker="^",
    transported_bits=1,
)
