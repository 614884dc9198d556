"""Settings that the figures of a metric against epsilon share."""

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name


class CurvesSettings(SettingsModel):
    """Which dataset and which backbone are shown."""

    dataset: Name | None = None
    """The dataset to show; all of them if left out."""
    backbone: Name | None = None
    """The backbone to show; the figure's own, or the only one, if left out."""
