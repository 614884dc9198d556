"""Settings of the table of all attacks."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """At which size of the perturbation the attacks of each norm are shown; pixels lie in [0, 1]."""

    epsilon_linf: float = Field(ge=0, le=100)
    """Size in the L-infinity norm."""
    epsilon_l2: float = Field(ge=0, le=10_000)
    """Size in the L2 norm."""
    epsilon_l0: float = Field(1.0, ge=0, le=10_000_000)
    """Size in the L0 norm: the number of pixels that change."""
