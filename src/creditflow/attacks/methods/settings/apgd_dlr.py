"""Settings of APGD on the difference of logits ratio."""

from creditflow.attacks.methods.settings import apgd_ce


class Settings(apgd_ce.Settings):
    """Those of APGD on the cross-entropy."""
