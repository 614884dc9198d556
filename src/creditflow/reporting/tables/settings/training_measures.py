"""Settings of the table of what was measured during training."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Label, Name


class Settings(SettingsModel):
    """Which measures have a column. The CSV file has all of them."""

    metrics: dict[Label, Name] = Field({})
    """Measures of training by the heads of their columns, such as {Angle to the gradient: update_angle}."""
