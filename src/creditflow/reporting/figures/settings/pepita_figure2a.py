"""Settings of the form of the PEPITA paper's Figure 2A."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name


class Settings(SettingsModel):
    """Which dataset and which size of the perturbation are shown."""

    dataset: Name | None = None
    """The dataset to show; may be left out where there is only one."""
    epsilon: float | None = Field(None, ge=0, le=10_000)
    """Size of the perturbation, pixels in [0, 1]; may be left out where the audit has only one."""
