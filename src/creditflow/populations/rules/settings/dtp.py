"""Settings of DTP."""

from creditflow.populations.rules.settings._targets import TargetSettings


class Settings(TargetSettings):
    """The settings that all rules with targets share."""
