"""Settings of the figure of accuracy against the length of fine-tuning."""

from pydantic import Field

from creditflow.core.settings import SettingsModel
from creditflow.reporting.setting_types import Name


class Settings(SettingsModel):
    """Which attack is shown, at which size of the perturbation, and on which backbone."""

    epsilon: float = Field(ge=0, le=10_000_000)
    """Size of the perturbation, in the attack's norm."""
    attack: Name = "pgd"
    """An attack that uses a gradient."""
    backbone: Name | None = None
    """The backbone to show; may be left out where there is only one."""
