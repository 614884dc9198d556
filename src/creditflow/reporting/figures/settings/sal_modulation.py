"""Settings of the figure of SAL's short-term modulation."""

from creditflow.reporting.figures.settings._one_place import OneVariantSettings
from creditflow.reporting.setting_types import Name


class Settings(OneVariantSettings):
    """Which dataset and which population are shown."""

    rule: Name = "sal"
    """The rule to show."""
