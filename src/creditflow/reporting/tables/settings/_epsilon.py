"""Settings that tables of accuracy at one epsilon share."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class EpsilonSettings(SettingsModel):
    """At which size of the perturbation accuracy is shown."""

    epsilon: float = Field(ge=0, le=10_000)
    """Size of the perturbation in the attack's norm, pixels in [0, 1]; one that the experiment measured."""
