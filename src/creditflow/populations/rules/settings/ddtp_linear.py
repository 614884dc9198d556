"""Settings of DDTP-linear."""

from creditflow.populations.rules.settings._targets import LastHiddenBias, TargetSettings


class Settings(TargetSettings, LastHiddenBias):
    """DDTP-linear has no further settings of its own."""
