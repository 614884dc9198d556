"""Settings that figures of one dataset and one network share."""

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name


class OneBackboneSettings(SettingsModel):
    """Which dataset and which backbone are shown."""

    dataset: Name | None = None
    """The dataset to show; may be left out where there is only one."""
    backbone: Name | None = None
    """The backbone to show; may be left out where there is only one."""


class OneVariantSettings(SettingsModel):
    """Which dataset and which population are shown."""

    dataset: Name | None = None
    """The dataset to show; may be left out where there is only one."""
    variant: Name | None = None
    """The variant of the population to show; may be left out where there is only one."""
