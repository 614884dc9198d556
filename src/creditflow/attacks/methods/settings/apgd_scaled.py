"""Settings of APGD on the cross-entropy of logits that are brought to a fixed scale."""

from creditflow.attacks.methods.settings import apgd_ce


class Settings(apgd_ce.Settings):
    """Those of APGD on the cross-entropy."""
