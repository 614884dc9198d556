"""Settings of TPGD."""

from pydantic import Field

from creditflow.core.settings import SettingsModel


class Settings(SettingsModel):
    """The divergence is flat at the image itself, so that the attack has to begin beside it."""

    steps: int = Field(10, ge=1, le=1_000_000)
    """Number of gradient steps."""
    relative_step: float = Field(0.25, gt=0, le=100)
    """Size of a step, in units of epsilon."""
    start_noise: float = Field(0.001, gt=0, le=1)
    """Standard deviation of the Gaussian noise that is added to the image at the start, in pixel values of [0, 1]."""
