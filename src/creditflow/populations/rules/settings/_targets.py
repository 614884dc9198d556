"""Settings that the rules of the target-propagation family share."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class TargetSettings(SettingsModel):
    """Settings of a rule with targets, whose feedback learns from noise."""

    step_size: float = Field(gt=0, le=1_000_000)
    """Distance of the output's target from the output (eta hat of the paper), in units of the loss gradient."""
    sigma: float = Field(gt=0, le=1_000)
    """Standard deviation of the noise from which feedback learns; without noise it would learn nothing."""


class LastHiddenBias(SettingsModel):
    """For rules whose published form has no forward bias in the last hidden layer."""

    last_hidden_bias: bool = False
    """Whether the forward bias of the last hidden layer learns; in the authors' code there is none."""
